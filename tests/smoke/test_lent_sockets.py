# SPDX-License-Identifier: MIT
"""Sockets that a program lends with ``sock=``: who owns which number, how they are given back."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import io
import os
import resource
import socket
import struct
import warnings
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ioxide
from tests.support import MIB, TIMEOUT, Whole, noise, open_fds, read_exactly, read_to_end, widen
from tests.transports import Recorder, run, the_loop, until


def _connected() -> tuple[socket.socket, socket.socket]:
    """A TCP connection: the end that is lent, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), TIMEOUT)
        theirs, _ = listener.accept()
    theirs.settimeout(TIMEOUT)
    return ours, theirs


async def _lend(
    sock: socket.socket, protocol: Recorder, way: str = "create_connection"
) -> ioxide.Transport:
    loop = the_loop()
    if way == "create_connection":
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    else:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    assert isinstance(transport, ioxide.Transport)
    return transport


@asynccontextmanager
async def _lent(
    protocol: Recorder, way: str = "create_connection"
) -> AsyncIterator[tuple[socket.socket, ioxide.Transport, socket.socket]]:
    """A lent socket, its transport and the peer; all of them are closed in the end."""
    ours, theirs = _connected()
    with ours, theirs:
        transport = await _lend(ours, protocol, way)
        yield ours, transport, theirs
        transport.abort()
        await until(lambda: "lost" in protocol.calls, "connection_lost()")


def _run_to_its_end(main: Coroutine[Any, Any, None]) -> None:
    """Run `main()`, which may leave a transport open, and close the loop."""
    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        runner.run(main)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # "unclosed transport"
        gc.collect()


def _give_number(fd: int, number: int) -> None:
    """Have the file of `fd` open under `number` alone."""
    if fd != number:
        os.dup2(fd, number, inheritable=False)
        os.close(fd)


def _nonblocking(sock: socket.socket) -> bool:
    return bool(fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK)


def _linger(sock: socket.socket) -> tuple[int, int]:
    value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    on, seconds = struct.unpack("ii", value)
    return on, seconds


@pytest.mark.parametrize("way", ["create_connection", "connect_accepted_socket"])
def test_a_file_that_takes_the_number_stays_open(way: str, tmp_path: Path) -> None:
    """The owner closes its socket before the transport ends: the number's next file is not ours."""

    async def main() -> None:
        protocol = Recorder()
        ours, theirs = _connected()
        with theirs:
            transport = await _lend(ours, protocol, way)
            number = ours.fileno()
            transport.close()
            ours.close()
            _give_number(os.open(tmp_path / "precious", os.O_CREAT | os.O_WRONLY), number)
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            await until(lambda: not the_loop().driver.connections(), "the descriptor's end")
            assert os.fstat(number).st_ino == (tmp_path / "precious").stat().st_ino
            os.close(number)
            assert b"" == await asyncio.to_thread(read_to_end, theirs)

    run(main())


def test_bytes_never_reach_the_next_owner_of_the_number() -> None:
    """A transport whose lent socket was closed goes on with its own peer until it ends."""

    async def main() -> None:
        protocol = Recorder()
        async with _lent(protocol) as (ours, transport, theirs):
            number = ours.fileno()
            ours.close()
            one, other = socket.socketpair()
            _give_number(one.detach(), number)
            with socket.socket(fileno=number) as one, other:
                transport.write(b"to my own peer")
                assert b"to my own peer" == await asyncio.to_thread(read_exactly, theirs, 14)
                transport.pause_reading()
                await asyncio.sleep(0.001)  # the receive is cancelled
                transport.resume_reading()  # and submitted once more
                one.sendall(b"from a stranger")
                other.sendall(b"from a stranger")
                theirs.sendall(b"from my own peer")
                await until(lambda: len(protocol.data) >= 16, "the peer's bytes")
                assert b"from my own peer" == bytes(protocol.data)
                assert b"from a stranger" == one.recv(99)
                assert b"from a stranger" == other.recv(99)

    run(main())


def test_the_next_owner_of_the_number_may_lend_it_as_well() -> None:
    """As with asyncio; the first transport, which has a duplicate, goes on beside the second."""

    async def main() -> None:
        first, second = Recorder(), Recorder()
        async with _lent(first) as (ours, transport, peer):
            number = ours.fileno()
            ours.close()
            another, theirs = _connected()
            _give_number(another.detach(), number)
            with socket.socket(fileno=number) as again, theirs:
                one = await _lend(again, second)
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await _lend(again, Recorder())
                transport.write(b"first")
                one.write(b"second")
                assert b"first" == await asyncio.to_thread(read_exactly, peer, 5)
                assert b"second" == await asyncio.to_thread(read_exactly, theirs, 6)
                one.abort()
                await until(lambda: "lost" in second.calls, "the second one's end")
                transport.write(b"still")
                assert b"still" == await asyncio.to_thread(read_exactly, peer, 5)

    run(main())


def test_the_number_that_the_owner_knows_is_shown_and_guarded() -> None:
    """get_extra_info(), repr() and asyncio's guard speak of the lent number, as in asyncio."""

    async def main() -> None:
        protocol = Recorder()
        async with _lent(protocol) as (ours, transport, theirs):
            assert ours.fileno() == transport.get_extra_info("socket").fileno()
            assert ours.getsockname() == transport.get_extra_info("socket").getsockname()
            assert f"fd={ours.fileno()} " in repr(transport)
            transport.pause_reading()
            await asyncio.sleep(0.001)
            theirs.sendall(b"none of these calls would block")
            for call in (
                the_loop().sock_recv(ours, 1),
                the_loop().sock_recv_into(ours, bytearray(1)),
                the_loop().sock_recvfrom(ours, 1),
                the_loop().sock_recvfrom_into(ours, bytearray(1)),
                the_loop().sock_sendall(ours, b"x"),
                the_loop().sock_sendto(ours, b"x", ours.getpeername()),
                the_loop().sock_sendfile(ours, io.BytesIO(b"x"), fallback=True),
            ):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await call
            transport.close()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert -1 == ours.fileno()
            assert -1 == transport.get_extra_info("socket").fileno()

    run(main())


def test_only_what_is_lent_costs_a_second_descriptor() -> None:
    """A socket that the loop connected itself is the connection's alone."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            before = open_fds()
            transport, _ = await the_loop().create_connection(Recorder, *listener.getsockname())
            assert before + 1 == open_fds()
            number = transport.get_extra_info("socket").fileno()
            assert os.fstat(number).st_ino
            transport.close()
            await until(lambda: before == open_fds(), "its end")
        protocol = Recorder()
        before = open_fds()
        async with _lent(protocol):
            assert before + 3 == open_fds()  # both ends, and our duplicate

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "the loop's"])
def test_a_duplicate_keeps_the_connection_as_it_was(end: str) -> None:
    """Nothing was cut off: whoever holds the file as well goes on with it, and meets its flags."""
    ours, theirs = _connected()

    async def main() -> None:
        protocol = Recorder()
        transport = await _lend(ours, protocol)
        transport.write(b"first, ")
        await until(lambda: not transport.get_write_buffer_size(), "an empty buffer")
        if end == "the loop's":
            return
        getattr(transport, end)()
        await until(lambda: "lost" in protocol.calls, "connection_lost()")
        await until(lambda: not the_loop().driver.connections(), "the descriptor's end")
        assert -1 == ours.fileno()

    ours.setblocking(False)  # as asyncio does in create_connection()
    with theirs, socket.socket(fileno=os.dup(ours.fileno())) as other:
        before = (_nonblocking(other), _linger(other))
        _run_to_its_end(main())
        ours.close()
        assert ((True, (0, 0)), before) == ((_nonblocking(other), _linger(other)), before)
        other.sendall(b"then the rest")
        assert b"first, then the rest" == read_exactly(theirs, 20)
        other.close()
        assert b"" == theirs.recv(1)


@pytest.mark.parametrize("end", ["abort", "the loop's"])
def test_what_is_cut_off_is_reset_whoever_holds_the_file(end: str) -> None:
    """The peer hears of it although a duplicate is open, which keeps the flags that it had."""
    ours, theirs = _connected()

    async def main() -> None:
        protocol = Recorder()
        transport = await _lend(ours, protocol)
        transport.write(bytes(16 * MIB))
        await until(lambda: the_loop().driver.counters().sends, "a SEND behind a closed window")
        if end == "the loop's":
            return
        transport.abort()
        await until(lambda: "lost" in protocol.calls, "connection_lost()")

    with theirs, socket.socket(fileno=os.dup(ours.fileno())) as other:
        _run_to_its_end(main())
        ours.close()
        with pytest.raises(ConnectionResetError):
            read_to_end(theirs)
        assert (True, (0, 0)) == (_nonblocking(other), _linger(other))


@pytest.mark.parametrize("lent", [True, False])
def test_another_holder_may_set_o_nonblock(lent: bool) -> None:
    """socket.dup() does, on the file that both share: what is submitted then waits all the same."""
    sent = noise(8 * MIB, seed=12)

    async def main() -> None:
        protocol = Recorder()
        with contextlib.ExitStack() as stack:
            transport: asyncio.Transport
            if lent:
                ours, theirs = map(stack.enter_context, _connected())
                transport = await _lend(ours, protocol)
                other = stack.enter_context(ours.dup())
            else:
                listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                where = listener.getsockname()
                transport, _ = await the_loop().create_connection(lambda: protocol, *where)
                theirs, _ = listener.accept()
                stack.enter_context(theirs).settimeout(TIMEOUT)
                other = stack.enter_context(transport.get_extra_info("socket").dup())
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert _nonblocking(other)
            transport.pause_reading()
            await asyncio.sleep(0.001)  # the receive is cancelled
            transport.resume_reading()
            await asyncio.sleep(0.01)  # and submitted once more, while nothing is there
            theirs.sendall(b"still read")
            await until(lambda: protocol.data == b"still read", "the peer's bytes")
            other.setblocking(False)
            transport.write(sent)
            enters = the_loop().driver.enters
            await asyncio.sleep(0.1)
            assert transport.get_write_buffer_size(), "all of it was taken at once"
            assert the_loop().driver.enters - enters < 50, "it asks again and again"
            widen(theirs)
            got = await asyncio.to_thread(read_exactly, theirs, len(sent))
            assert Whole(sent) == Whole(got)
            transport.close()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            await until(lambda: not the_loop().driver.connections(), "the descriptor's end")
            assert _nonblocking(other)

    run(main())


def test_a_socket_object_of_a_transport_owns_its_number() -> None:
    """Kept beyond the connection's end it holds a duplicate, not a number that is used again."""

    async def main() -> None:
        protocol = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            where = listener.getsockname()
            transport, _ = await the_loop().create_connection(lambda: protocol, *where)
            kept = transport.get_extra_info("socket")._sock
            name = kept.getsockname()
            transport.close()
            await until(lambda: not the_loop().driver.connections(), "the descriptor's end")
            one, other = socket.socketpair()
            with one, other:
                assert name == kept.getsockname()
            kept.close()

    run(main())


def test_without_a_descriptor_left_asyncio_keeps_the_socket() -> None:
    """There is none for the duplicate: the socket becomes one of asyncio's own transports."""

    async def main() -> None:
        ours, theirs = _connected()
        with ours, theirs:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
                transport, _ = await the_loop().create_connection(lambda: protocol, sock=ours)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert not isinstance(transport, ioxide.Transport)
            transport.write(b"taken")
            assert b"taken" == await asyncio.to_thread(read_exactly, theirs, 5)
            transport.close()
            await asyncio.sleep(0.001)

    run(main())


def test_a_socket_that_gets_no_transport_is_given_back() -> None:
    """The transport cannot be made: the socket is connected still, and non-blocking as before."""

    async def main() -> None:
        ours, theirs = _connected()
        with ours, theirs:
            with pytest.raises(AttributeError, match="data_received"):
                await the_loop().create_connection(asyncio.BaseProtocol, sock=ours)
            await until(lambda: not the_loop().driver.connections(), "the duplicate's end")
            assert (True, (0, 0)) == (_nonblocking(ours), _linger(ours))
            ours.sendall(b"still there")
            assert b"still there" == read_exactly(theirs, 11)

    run(main())
