# SPDX-License-Identifier: MIT
"""Transports that nobody refers to, and that neither read nor send: closed, as with asyncio."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref

import pytest

import ioxide
from tests.support import MIB, SMALL, TIMEOUT, Whole, noise, open_fds, read_to_end
from tests.transports import Peer, Recorder, pair, run, the_loop, until

unclosed = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


class _Forgetful(asyncio.Protocol):
    """Does `act` when it is connected, and keeps nothing."""

    def __init__(self, act: str, data: bytes) -> None:
        self._act = act
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=2 * len(self._data))
        transport.write(self._data)
        if self._act == "pause":
            transport.pause_reading()

    def eof_received(self) -> bool:
        return True


async def _client(server: asyncio.Server, rcvbuf: int | None = None) -> Peer:
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    if rcvbuf is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    await asyncio.to_thread(sock.connect, server.sockets[0].getsockname())
    return Peer(sock)


async def _collected(condition: weakref.ref[object]) -> None:
    def gone() -> bool:
        gc.collect()
        return condition() is None

    await until(gone, "the end of a transport that nobody refers to")


@unclosed
@pytest.mark.parametrize("act", ["pause", "peer's end"])
@pytest.mark.parametrize("size", [1, 8 * MIB])
def test_a_forgotten_transport_is_closed(act: str, size: int) -> None:
    """All that it had written arrives, however slow its peer is, and then a FIN."""
    data = noise(size, seed=14)
    made: list[weakref.ref[object]] = []

    def factory() -> _Forgetful:
        protocol = _Forgetful(act, data)
        made.append(weakref.ref(protocol))
        return protocol

    async def main() -> None:
        server = await the_loop().create_server(factory, "127.0.0.1", 0)
        peer = await _client(server, rcvbuf=4096)
        await until(lambda: made, "the connection")
        if act == "peer's end":
            peer.sock.shutdown(socket.SHUT_WR)
        if size > MIB:
            for _ in range(20):
                await asyncio.sleep(0.001)
                gc.collect()
            assert made[0]() is not None, "it was closed with bytes unsent"
        assert Whole(data) == Whole(await _read_while_collecting(peer))
        await _collected(made[0])
        peer.sock.close()
        server.close()

    run(main())


@unclosed
def test_a_protocol_set_at_rest_does_not_keep_its_transport() -> None:
    """The core does not refer to a transport at rest by a protocol that it is given meanwhile."""

    class Successor(asyncio.Protocol):
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport

    async def main() -> None:
        recorder = Recorder()
        server = await the_loop().create_server(lambda: recorder, "127.0.0.1", 0)
        peer = await _client(server)
        await until(lambda: recorder.calls, "the connection")
        transport = recorder.transport
        await asyncio.sleep(0)
        transport.pause_reading()
        transport.set_protocol(Successor(transport))
        condition: weakref.ref[object] = weakref.ref(transport)
        del transport, recorder.transport
        await _collected(condition)
        assert b"" == await peer.read_to_end()
        peer.sock.close()
        server.close()

    run(main())


async def _read_while_collecting(peer: Peer) -> bytes:
    reading = asyncio.ensure_future(peer.read_to_end())
    while not reading.done():
        gc.collect()
        await asyncio.sleep(0.01)
    return reading.result()


@unclosed
def test_handlers_that_never_close_leave_no_descriptor() -> None:
    """A streams server whose handlers read to the end, and forget to close the writer."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())

    async def main() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        before = open_fds()
        for _ in range(20):
            peer = await _client(server)
            await peer.send(b"x")
            peer.sock.shutdown(socket.SHUT_WR)
            assert b"x" == await _read_while_collecting(peer)
            peer.sock.close()
        await until(lambda: open_fds() <= before, "the handlers' descriptors")
        server.close()

    run(main())


def _collected_elsewhere(loop: ioxide.Loop) -> bool:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    return loop.driver.counters().connections_now == 0


@unclosed
def test_collected_on_another_thread() -> None:
    """A thread that is not the loop's runs the collector: the loop ends the connection."""

    async def main() -> None:
        loop = the_loop()
        server = await loop.create_server(lambda: _Forgetful("pause", b"x"), "127.0.0.1", 0)
        gc.disable()
        try:
            peer = await _client(server)
            await until(lambda: loop.driver.counters().connections_now == 1, "the connection")
            assert b"x" == await peer.read(1)
            await until(lambda: _collected_elsewhere(loop), "its end")
        finally:
            gc.enable()
        assert b"" == read_to_end(peer.sock)
        peer.sock.close()
        server.close()

    run(main())


@unclosed
def test_the_server_hears_of_it() -> None:
    """From Python 3.13 on a server counts its transports: one that was forgotten is none."""

    async def main() -> None:
        loop = the_loop()
        server = await loop.create_server(lambda: _Forgetful("pause", b"x"), "127.0.0.1", 0)
        peer = await _client(server)
        assert b"x" == await peer.read(1)
        server.close()

        def ended() -> bool:
            gc.collect()
            return loop.driver.counters().connections_now == 0

        await until(ended, "its end")
        if hasattr(server, "close_clients"):
            await asyncio.wait_for(server.wait_closed(), TIMEOUT)
        peer.sock.close()

    run(main())


@unclosed
def test_the_end_of_the_loop_comes_first() -> None:
    """Its loop is closed while it rests: the peer gets a FIN, and the collector no error."""

    async def main() -> tuple[Peer, weakref.ref[object]]:
        protocol = Recorder()
        server = await the_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        peer = await _client(server)
        await until(lambda: protocol.calls, "connection_made()")
        protocol.transport.pause_reading()
        await asyncio.sleep(0.005)
        server.close()
        return peer, weakref.ref(protocol)

    peer, protocol = ioxide.run(main(), config=SMALL)
    assert b"" == read_to_end(peer.sock)
    gc.collect()
    assert protocol() is None
    peer.sock.close()


def test_one_that_is_referred_to_goes_on() -> None:
    """Paused, it is not closed: it writes, hears of what it asked for, and reads again."""
    data = noise(8 * MIB, seed=15)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol, rcvbuf=4096) as peer:
            transport = protocol.transport
            for number in range(3):
                transport.pause_reading()
                gc.collect()
                await asyncio.sleep(0.005)
                transport.write(b"%d" % number)
                assert b"%d" % number == await peer.read(1)
                await peer.send(b"%d" % number)
                await asyncio.sleep(0.005)
                assert bytes(range(ord("0"), ord("0") + number)) == protocol.data
                transport.resume_reading()
                await until(lambda n=number: len(protocol.data) == n + 1, "a byte")  # type: ignore[misc]
            transport.pause_reading()
            await asyncio.sleep(0.005)
            transport.write(data)
            assert Whole(data) == Whole(await peer.read(len(data)))
            await until(lambda: "resume" in protocol.calls, "resume_writing()")
            assert 0 == transport.get_write_buffer_size()

    run(main())


def test_a_write_that_fails_is_told_while_it_rests() -> None:
    """The peer has reset: nobody reads, and the write that meets it ends the transport."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            protocol.transport.pause_reading()
            await asyncio.sleep(0.005)
            peer.reset()
            await asyncio.sleep(0.005)
            assert "lost" not in protocol.calls
            protocol.transport.write(b"x")
            protocol.transport.write(b"y")
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert isinstance(protocol.lost_by, OSError)

    run(main())
