# SPDX-License-Identifier: MIT
"""What peers see of a loop's end: whole streams end whole, those that were cut off with a reset."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable

import pytest

import ioxide
from tests.support import (
    MIB,
    NARROW,
    SMALL,
    TIMEOUT,
    Whole,
    noise,
    open_fds,
    read_exactly,
    read_to_end,
)
from tests.transports import Recorder, the_loop, until

Made = Callable[[Recorder], Awaitable[socket.socket]]
Act = Callable[[Recorder, socket.socket], Awaitable[None]]


async def _accepted(protocol: Recorder) -> socket.socket:
    server = await the_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    peer = socket.create_connection(server.sockets[0].getsockname(), TIMEOUT)
    await until(lambda: protocol.calls, "connection_made()")
    server.close()
    return peer


async def _connected(protocol: Recorder) -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await the_loop().create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
    peer.settimeout(TIMEOUT)
    return peer


async def _lent(protocol: Recorder) -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), TIMEOUT)
        await the_loop().create_connection(lambda: protocol, sock=sock)
        peer, _ = listener.accept()
    peer.settimeout(TIMEOUT)
    return peer


by_origin = pytest.mark.parametrize("made", [_accepted, _connected, _lent])


def _ended(made: Made, act: Act, **changes: object) -> tuple[socket.socket, ioxide.Counters]:
    """`act(protocol, peer)` on a loop that is closed right after it; the peer, and the counters."""
    before = open_fds()
    loop = ioxide.new_event_loop(SMALL.replace(**changes))

    async def main() -> socket.socket:
        protocol = Recorder()
        peer = await made(protocol)
        await act(protocol, peer)
        return peer

    try:
        peer = loop.run_until_complete(main())
    finally:
        loop.close()
    with warnings.catch_warnings():
        # "unclosed transport"; a lent socket is closed here, as asyncio's is.
        warnings.simplefilter("ignore", ResourceWarning)
        del loop._transports  # type: ignore[attr-defined]
        gc.collect()
    assert before + 1 == open_fds()
    stats = loop.driver.counters()
    assert (0, 0) == (stats.connections_now, stats.memory_faults)
    return peer, stats


async def _drained(protocol: Recorder, _: socket.socket) -> None:
    protocol.transport.write(b"all of it")
    await until(lambda: not protocol.transport.get_write_buffer_size(), "an empty buffer")


async def _written(protocol: Recorder, _: socket.socket) -> None:
    the_loop().call_soon(protocol.transport.write, b"all of it")  # in the very last step


async def _closing(protocol: Recorder, _: socket.socket) -> None:
    the_loop().call_soon(protocol.transport.write, b"all of it")
    the_loop().call_soon(protocol.transport.close)


async def _half_closed(protocol: Recorder, _: socket.socket) -> None:
    protocol.transport.write(b"all of it")
    protocol.transport.write_eof()
    await until(lambda: not protocol.transport.get_write_buffer_size(), "an empty buffer")


@by_origin
@pytest.mark.parametrize("act", [_drained, _written, _closing, _half_closed])
@pytest.mark.parametrize("zero_copy", [False, True])
def test_the_end_of_a_loop_delivers_what_was_written(made: Made, act: Act, zero_copy: bool) -> None:
    """Every byte and the end of the stream, though connection_lost() has not been called."""
    peer, stats = _ended(made, act, zero_copy_send=zero_copy)
    with peer:
        assert b"all of it" == read_to_end(peer)
    assert (0, 9) == (stats.aborts, stats.bytes_sent)


@pytest.mark.parametrize("zero_copy", [False, True])
def test_the_end_of_a_loop_leaves_a_slow_peer_its_bytes(zero_copy: bool) -> None:
    """What the kernel holds for a slow peer arrives, also where that is our pages and no copy."""
    got: list[bytes] = []

    async def slow(protocol: Recorder) -> socket.socket:
        server = await the_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)  # before connect(2)
        peer.settimeout(TIMEOUT)
        peer.connect(server.sockets[0].getsockname())
        await until(lambda: protocol.calls, "connection_made()")
        server.close()
        return peer

    async def act(protocol: Recorder, peer: socket.socket) -> None:
        sent.append(noise(60_000, seed=14))
        protocol.transport.write(sent[0])
        await until(lambda: not protocol.transport.get_write_buffer_size(), "an empty buffer")
        stats = the_loop().driver.counters()
        assert (zero_copy, 0) == (stats.zc_notifs < stats.sends_zc, stats.zc_fallbacks)
        reader = threading.Timer(0.2, lambda: got.append(read_to_end(peer)))
        readers.append(reader)
        reader.start()

    sent: list[bytes] = []
    readers: list[threading.Timer] = []
    peer, _ = _ended(slow, act, zero_copy_send=zero_copy)
    readers[0].join(TIMEOUT)
    peer.close()
    assert [Whole(sent[0])] == [Whole(data) for data in got]


@by_origin
@pytest.mark.parametrize("zero_copy", [False, True])
def test_the_end_of_a_loop_resets_what_it_cuts_off(made: Made, zero_copy: bool) -> None:
    """Bytes that the kernel had not taken are lost: the peer does not see a whole stream."""

    async def act(protocol: Recorder, _: socket.socket) -> None:
        protocol.transport.write(bytes(16 * MIB))
        await until(lambda: the_loop().driver.counters().sends, "a SEND behind a closed window")

    peer, stats = _ended(made, act, zero_copy_send=zero_copy)
    with peer, pytest.raises(ConnectionResetError):
        read_to_end(peer)
    assert 1 == stats.aborts


@by_origin
@pytest.mark.parametrize("where", ["the kernel's queue", "ours"])
def test_the_end_of_a_loop_resets_a_peer_that_was_not_heard(made: Made, where: str) -> None:
    """As the kernel does when a socket is closed with bytes unread, whoever has them."""

    async def act(protocol: Recorder, peer: socket.socket) -> None:
        await asyncio.sleep(0.001)  # the receive is armed
        if where == "ours":
            peer.sendall(b"unheard")  # taken in with the tick in which the protocol pauses
            the_loop().driver.wait(1)
        protocol.transport.pause_reading()
        await asyncio.sleep(0.001)
        if where != "ours":
            peer.sendall(b"unheard")
        assert [] == protocol.calls[1:]
        assert (7 if where == "ours" else 0) == the_loop().driver.counters().bytes_received

    peer, _ = _ended(made, act)
    with peer, pytest.raises(ConnectionResetError):
        read_exactly(peer, 1)
