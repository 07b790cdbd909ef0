# SPDX-License-Identifier: MIT
"""asyncio's transports as a face of the connection core: reading, writing, what they know."""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextvars
import fcntl
import inspect
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ioxide
from tests.support import MIB, Whole, noise, widen
from tests.transports import Recorder, pair, run, the_loop, until


def test_a_server_and_a_client_are_on_the_ring() -> None:
    """start_server() accepts through the ring, and open_connection() is taken over by it."""

    async def main() -> ioxide.Counters:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        payload = noise(MIB, seed=1)
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert isinstance(writer.transport, ioxide.Transport)
            assert ("127.0.0.1", port) == writer.get_extra_info("peername")
            answer = asyncio.create_task(reader.readexactly(MIB))
            writer.write(payload)
            await writer.drain()
            assert Whole(payload) == Whole(await answer)
            writer.write_eof()
            assert b"" == await reader.read()
            writer.close()
            await writer.wait_closed()
        await until(lambda: the_loop().driver.counters().closes == 2, "both ends")
        return the_loop().driver.counters()

    stats = run(main())
    assert (1, 1, 2, 0) == (stats.accepts, stats.adoptions, stats.closes, stats.aborts)
    assert (2 * MIB, 2 * MIB) == (stats.bytes_received, stats.bytes_sent)


async def standstill(value: Callable[[], int]) -> int:
    """Wait until `value()` is not 0 and does not change any more while the loop runs."""
    last, since = 0, 0.0
    loop = asyncio.get_running_loop()

    def same() -> bool:
        nonlocal last, since
        if last != (now := value()):
            last, since = now, loop.time()
        return last != 0 and loop.time() - since > 0.3

    await until(same, "a standstill")
    return last


def _unsent(sock: socket.socket) -> int:
    """What the peer's kernel still holds (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])


def test_pause_reading_holds_back_bytes_and_the_peer() -> None:
    """While paused no callback comes and nothing is received; then every byte, in order."""
    sent = noise(8 * MIB, seed=2)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            protocol.transport.pause_reading()
            assert not protocol.transport.is_reading()
            await asyncio.sleep(0.001)  # a tick: the receive is cancelled
            sending = asyncio.create_task(peer.send(sent))
            await standstill(lambda: _unsent(peer.sock))  # the peer meets a closed window
            assert not sending.done()
            assert ["made"] == protocol.calls
            assert 0 == the_loop().driver.counters().bytes_received
            protocol.transport.resume_reading()
            await sending
            await until(lambda: len(protocol.data) == len(sent), "every byte")
            assert Whole(sent) == Whole(protocol.data)

    run(main())


def test_pausing_from_data_received_keeps_the_rest() -> None:
    """A protocol that pauses with each piece gets the next one only after it has resumed."""
    sent = noise(MIB, seed=8)

    class Reluctant(Recorder):
        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading(), "data_received() while paused"
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self.transport.resume_reading)

    async def main() -> None:
        protocol = Reluctant()
        async with pair(protocol) as peer:
            sending = asyncio.create_task(peer.send(sent))
            await until(lambda: len(protocol.data) == len(sent), "every byte")
            await sending
            assert Whole(sent) == Whole(protocol.data)

    run(main())


def test_writelines_sends_all_or_nothing() -> None:
    """Any iterable of bytes-like objects is sent; with a wrong item in it, none of it is."""

    def broken() -> Iterator[bytes]:
        yield b"lost"
        raise ZeroDivisionError

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            transport = protocol.transport
            wrong: Any = ([b"lost", "text"], [b"lost", 7], [b"lost", None], b"lost", 7)
            for items in wrong:
                with pytest.raises(TypeError):
                    transport.writelines(items)
            with pytest.raises(ZeroDivisionError):
                transport.writelines(broken())
            with pytest.raises((TypeError, BufferError)):
                transport.writelines([b"lost", memoryview(b"abcd")[::2]])
            for data in (*wrong[:3], "lost", 7):
                with pytest.raises(TypeError, match="must be a bytes-like object, not"):
                    transport.write(data)
            with pytest.raises(BufferError):
                transport.write(memoryview(b"abcd")[::2])
            assert 0 == transport.get_write_buffer_size()
            transport.writelines([])
            numbers = memoryview(struct.pack("ii", 1, 2)).cast("i")
            transport.writelines(part for part in (b"all", bytearray(b" of "), numbers))
            transport.write_eof()
            assert b"all of " + struct.pack("ii", 1, 2) == await peer.read_to_end()
            with pytest.raises(RuntimeError, match="after write_eof"):
                transport.writelines([b"late"])

    run(main())


def test_a_buffered_protocol_gets_its_bytes_in_place() -> None:
    """get_buffer() is asked for each piece, and what comes fits it, byte for byte."""
    sent = noise(MIB, seed=11)

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(5000)
            self.data = bytearray()
            self.ended = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, ioxide.Transport)

        def get_buffer(self, sizehint: int) -> bytearray:
            assert -1 == sizehint
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            assert 0 < nbytes <= len(self.buffer)
            self.data += self.buffer[:nbytes]

        def eof_received(self) -> bool:
            self.ended = True
            return False

    async def main() -> None:
        protocol = Buffered()
        async with pair(protocol) as peer:
            await peer.send(sent)
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.ended, "eof_received()")
            assert Whole(sent) == Whole(protocol.data)

    run(main())


def test_write_takes_everything_and_tells_the_protocol_to_pause() -> None:
    """Beyond write_limit write() raises nothing; pause and resume come once, around the wait."""
    sent = noise(4 * MIB, seed=9)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol, rcvbuf=4096) as peer:
            transport = protocol.transport
            transport.set_write_buffer_limits(high=100_000, low=10_000)
            assert (10_000, 100_000) == transport.get_write_buffer_limits()
            transport.write(sent[:MIB])
            assert ["made", "pause"] == protocol.calls
            transport.writelines([sent[MIB : 2 * MIB], memoryview(sent)[2 * MIB :]])
            assert len(sent) == transport.get_write_buffer_size()
            widen(peer.sock)
            reading = asyncio.create_task(peer.read(len(sent)))
            await until(lambda: protocol.calls[-1] == "resume", "resume_writing()")
            assert transport.get_write_buffer_size() <= 10_000
            assert Whole(sent) == Whole(await reading)
            transport.write(b"few")
            assert ["made", "pause", "resume"] == protocol.calls

    run(main(), write_limit=65536)


def test_write_eof_leaves_reading_open() -> None:
    """After write_eof() the peer sees the end, its answer still comes, and write() refuses."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            assert protocol.transport.can_write_eof()
            protocol.transport.write(b"all of it")
            protocol.transport.write_eof()
            with pytest.raises(RuntimeError, match="after write_eof"):
                protocol.transport.write(b"more")
            assert b"all of it" == await peer.read_to_end()
            await peer.send(b"an answer")
            await until(lambda: protocol.data == b"an answer", "the answer")

    run(main())


def test_extra_info_is_the_connections() -> None:
    """Addresses stay known after the end; the socket answers until then and never closes it."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            transport, address = protocol.transport, peer.sock.getsockname()
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert address == transport.get_extra_info("peername") == sock.getpeername()
            assert peer.sock.getpeername() == transport.get_extra_info("sockname")
            assert 1 == sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert (socket.AF_INET, socket.SOCK_STREAM) == (sock.family, sock.type)
            assert "laddr" in repr(sock)
            assert None is transport.get_extra_info("sslcontext")
            with sock.dup() as mine:
                assert address == mine.getpeername()
            await peer.send(b"not closed by any of this")
            await until(lambda: len(protocol.data) == 25, "the bytes")
            transport.abort()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert address == transport.get_extra_info("peername")
            with pytest.raises(OSError, match="Bad file descriptor"):
                sock.getpeername()

    run(main())


def test_a_default_timeout_of_sockets_does_not_reach_the_ring() -> None:
    """socket.setdefaulttimeout() makes new socket objects non-blocking; ours stay as they are."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            socket.setdefaulttimeout(30)
            sock = protocol.transport.get_extra_info("socket")
            sock.getpeername()
            assert 0 == fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
            await peer.send(b"one")
            await until(lambda: protocol.data == b"one", "bytes after the question")

    try:
        run(main())
    finally:
        socket.setdefaulttimeout(None)


def test_callbacks_run_in_the_context_of_the_server() -> None:
    """Each connection has a copy of the context in which its server was started."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    class Contextual(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            seen.append(variable.get())
            variable.set("the connection's")

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.append(variable.get())

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            seen.append(variable.get())

    async def main() -> None:
        variable.set("the server's")
        async with pair(Contextual()) as peer:
            await peer.send(b"x")
            await until(lambda: len(seen) == 2, "data_received()")
        assert "the server's" == variable.get()

    run(main())
    assert ["the server's", "the connection's", "the connection's"] == seen


def test_write_is_called_as_a_method_of_python() -> None:
    """Its argument has a name, and messages that name it name the transport."""

    async def main() -> bytes:
        recorder = Recorder()
        async with pair(recorder) as peer:
            write = recorder.transport.write
            assert "Transport.write" == write.__qualname__
            assert ["data"] == list(inspect.signature(write).parameters)
            write(data=b"named")
            wrong: Any = write
            calls: list[Callable[[], None]] = [
                lambda: wrong(),
                lambda: wrong(b"x", b"y"),
                lambda: wrong(b"x", data=b"y"),
                lambda: wrong(date=b"x"),
            ]
            for call in calls:
                with pytest.raises(TypeError, match=r"write\(\)"):
                    call()
            recorder.transport.close()
            return await peer.read_to_end()

    assert b"named" == run(main())
