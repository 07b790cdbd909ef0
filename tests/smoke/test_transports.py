# SPDX-License-Identifier: MIT
"""asyncio's transports as a face of the connection core: their contract, callback by callback."""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextlib
import contextvars
import fcntl
import hashlib
import os
import random
import socket
import struct
import sys
import tempfile
import termios
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

import ioxide
from tests.faces import Face, Stream, serve
from tests.support import (
    SMALL,
    TIMEOUT,
    connect,
    on_reactor,
    open_fds,
    read_exactly,
    read_to_end,
)
from tests.support import echo as stream_echo
from tests.support import serve as support_serve
from tests.support import until as blocking_until

T = TypeVar("T")
MIB = 1 << 20


def run(main: Coroutine[Any, Any, T], *, faults: Sequence[str] = (), **changes: object) -> T:
    """Run `main` on a ring with small buffers; nothing of it is left afterwards.

    `faults` are the messages that the loop's exception handler gets, no more and no less.
    """
    before = open_fds()
    reported: list[str] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        return await asyncio.wait_for(main, 4 * TIMEOUT)  # what is waited for fails first

    result = ioxide.run(bounded(), config=SMALL.replace(**changes))
    assert list(faults) == reported
    assert before == open_fds()
    return result


def the_loop() -> ioxide.Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ioxide.Loop)
    return loop


class Recorder(asyncio.Protocol):
    """Notes every callback, in order; tests wait with `until()`."""

    keep_open = False
    transport: ioxide.Transport

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.lost_by: BaseException | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, ioxide.Transport)
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost_by = exc


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition()` holds, while the loop runs."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {TIMEOUT} s: {what}"
        await asyncio.sleep(0.002)


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


class Peer:
    """The other end: a plain blocking socket, used on a thread of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def _call(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(call, *args)

    async def send(self, data: bytes) -> None:
        await self._call(self.sock.sendall, data)

    async def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (
            part := await self._call(self.sock.recv, min(size - len(data), MIB))
        ):
            data += part
        return bytes(data)

    async def read_to_end(self) -> bytes:
        return await self.read(1 << 62)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@asynccontextmanager
async def pair(
    protocol: Recorder | asyncio.BufferedProtocol, *, rcvbuf: int | None = None
) -> AsyncIterator[Peer]:
    """`protocol` on an accepted connection, and its peer."""
    loop = the_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    sock = socket.socket()
    try:
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(TIMEOUT)
        address = server.sockets[0].getsockname()
        await asyncio.to_thread(sock.connect, address)
        if isinstance(protocol, Recorder):
            await until(lambda: protocol.calls, "connection_made()")
        yield Peer(sock)
    finally:
        sock.close()
        server.close()
        if isinstance(protocol, Recorder) and hasattr(protocol, "transport"):
            protocol.transport.abort()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
        await server.wait_closed()


def test_a_server_and_a_client_are_on_the_ring() -> None:
    """start_server() accepts through the ring, and open_connection() is taken over by it."""

    async def main() -> ioxide.Counters:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        payload = random.Random(1).randbytes(MIB)
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert isinstance(writer.transport, ioxide.Transport)
            assert ("127.0.0.1", port) == writer.get_extra_info("peername")
            answer = asyncio.create_task(reader.readexactly(MIB))
            writer.write(payload)
            await writer.drain()
            assert hashlib.sha256(payload).digest() == hashlib.sha256(await answer).digest()
            writer.write_eof()
            assert b"" == await reader.read()
            writer.close()
            await writer.wait_closed()
        await until(lambda: the_loop().driver.counters().closes == 2, "both ends")
        return the_loop().driver.counters()

    stats = run(main())
    assert (1, 1, 2, 0) == (stats.accepts, stats.adoptions, stats.closes, stats.aborts)
    assert (2 * MIB, 2 * MIB) == (stats.bytes_received, stats.bytes_sent)


def test_pause_reading_holds_back_bytes_and_the_peer() -> None:
    """While paused no callback comes and nothing is received; then every byte, in order."""
    sent = random.Random(2).randbytes(8 * MIB)

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
            assert hashlib.sha256(sent).digest() == hashlib.sha256(protocol.data).digest()

    run(main())


def test_pausing_from_data_received_keeps_the_rest() -> None:
    """A protocol that pauses with each piece gets the next one only after it has resumed."""
    sent = random.Random(8).randbytes(MIB)

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
            assert hashlib.sha256(sent).digest() == hashlib.sha256(protocol.data).digest()

    run(main())


def test_write_takes_everything_and_tells_the_protocol_to_pause() -> None:
    """Beyond write_limit write() raises nothing; pause and resume come once, around the wait."""
    sent = random.Random(9).randbytes(4 * MIB)

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
            reading = asyncio.create_task(peer.read(len(sent)))
            await until(lambda: protocol.calls[-1] == "resume", "resume_writing()")
            assert transport.get_write_buffer_size() <= 10_000
            assert hashlib.sha256(sent).digest() == hashlib.sha256(await reading).digest()
            transport.write(b"few")
            assert ["made", "pause", "resume"] == protocol.calls

    run(main(), write_limit=65536)


@pytest.mark.parametrize("keep_open", [False, True])
def test_eof_received_says_whether_the_connection_stays(keep_open: bool) -> None:
    """False closes; True leaves our side open, for as long as the protocol likes."""

    async def main() -> None:
        protocol = Recorder()
        protocol.keep_open = keep_open
        async with pair(protocol) as peer:
            await peer.send(b"last")
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.calls, "eof_received()")
            if keep_open:
                protocol.transport.write(b"answer")
                assert b"answer" == await peer.read(6)
                assert not protocol.transport.is_closing()
                protocol.transport.close()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert b"" == await peer.read_to_end()
            assert (["made", "data", "eof", "lost"], None) == (protocol.calls, protocol.lost_by)

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "close twice", "close, then abort", "reset"])
def test_connection_lost_comes_once(end: str) -> None:
    """However a connection ends, and however often: one connection_lost(), with the right cause."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            if end == "reset":
                peer.reset()
            else:
                for name in end.replace(" twice", ", then close").split(", then "):
                    getattr(protocol.transport, name)()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert protocol.transport.is_closing()
            protocol.transport.close()
            protocol.transport.abort()
            for _ in range(5):
                await asyncio.sleep(0.001)
            assert ["made", "lost"] == protocol.calls
            cause = ConnectionResetError if end == "reset" else type(None)
            assert cause is type(protocol.lost_by)
            assert -1 == protocol.transport.get_extra_info("socket").fileno()

    run(main())


def test_close_waits_for_what_was_written() -> None:
    """connection_lost() comes when the last byte was handed to the kernel, and not before."""
    sent = random.Random(10).randbytes(8 * MIB)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol, rcvbuf=4096) as peer:
            protocol.transport.write(sent)
            protocol.transport.close()
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert ["made", "pause"] == protocol.calls
            whole = await peer.read_to_end()
            assert hashlib.sha256(sent).digest() == hashlib.sha256(whole).digest()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert (["made", "pause", "resume", "lost"], None) == (
                protocol.calls,
                protocol.lost_by,
            )

    run(main())


@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received"])
def test_a_callback_that_raises_ends_its_transport_alone(callback: str) -> None:
    """The fault goes to the exception handler and to connection_lost(); the loop serves on."""
    boom = ZeroDivisionError("of the protocol")

    class Faulty(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._fail("data_received")

        def eof_received(self) -> bool:
            self._fail("eof_received")
            return True

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._fail("connection_made")

        def _fail(self, name: str) -> None:
            if callback == name:
                raise boom

    async def main() -> int:
        protocol, other = Faulty(), Recorder()
        async with pair(other) as bystander:
            async with pair(protocol) as peer:
                with contextlib.suppress(OSError):  # connection_made() may have ended it by now
                    await peer.send(b"x")
                    peer.sock.shutdown(socket.SHUT_WR)
                await until(lambda: "lost" in protocol.calls, "connection_lost()")
                assert boom is protocol.lost_by
            await bystander.send(b"still here")
            await until(lambda: other.data == b"still here", "the bystander's bytes")
        return the_loop().driver.counters().wakeup_faults

    message = f"Fatal error: protocol.{callback}() call failed."
    assert 0 == run(main(), faults=[message])


def test_a_failure_to_send_ends_a_paused_transport() -> None:
    """Nobody reads, so only the SEND meets the reset: connection_lost() tells it all the same."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            protocol.transport.pause_reading()
            await asyncio.sleep(0.001)  # the receive is cancelled
            peer.reset()
            protocol.transport.write(b"to nobody")
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert isinstance(protocol.lost_by, ConnectionError)
            assert ["made", "lost"] == protocol.calls

    run(main())


def test_a_buffered_protocol_gets_its_bytes_in_place() -> None:
    """get_buffer() is asked for each piece, and what comes fits it, byte for byte."""
    sent = random.Random(11).randbytes(MIB)

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
            assert hashlib.sha256(sent).digest() == hashlib.sha256(protocol.data).digest()

    run(main())


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


def test_writes_to_a_lost_connection_are_dropped_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As asyncio: the first few are silent, then each is a warning; none raises."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol):
            protocol.transport.abort()
            for _ in range(4):
                protocol.transport.write(b"x")
            assert [] == caplog.messages
            for _ in range(3):
                protocol.transport.write(b"x")
            assert ["socket.send() raised exception."] * 3 == caplog.messages

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


def test_a_closed_server_frees_its_port_at_once() -> None:
    """After Server.close() nobody gets in, what is open goes on, and the port can be had again."""

    async def main() -> None:
        loop = the_loop()
        protocol = Recorder()
        async with pair(protocol) as peer:
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            server.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=TIMEOUT)
            again = await loop.create_server(Recorder, *address)
            again.close()
            await server.wait_closed()
            await again.wait_closed()
            await peer.send(b"x")
            await until(lambda: protocol.data == b"x", "bytes of the open connection")

    run(main())


def test_more_servers_than_the_ring_has_listeners() -> None:
    """Forty servers at once all accept; those beyond the ring's share are asyncio's own."""

    async def main() -> None:
        loop = the_loop()
        protocols: list[Recorder] = []

        class Listed(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                protocols.append(self)

        servers = [await loop.create_server(Listed, "127.0.0.1", 0) for _ in range(40)]
        socks = [
            await asyncio.to_thread(
                socket.create_connection, server.sockets[0].getsockname(), TIMEOUT
            )
            for server in servers
        ]
        await until(lambda: len(protocols) == 40, "forty connections")
        stats = loop.driver.counters()
        assert (32, 8) == (stats.accepts, stats.adoptions)
        for server, sock, protocol in zip(servers, socks, protocols, strict=True):
            protocol.transport.abort()
            sock.close()
            server.close()
        await until(lambda: all("lost" in each.calls for each in protocols), "forty ends")

    run(main())


def test_what_is_not_tcp_stays_with_the_selector(tmp_path: Path) -> None:
    """Unix sockets, datagrams and a child's pipes work beside the ring."""

    async def main() -> None:
        loop = the_loop()

        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert not isinstance(writer.transport, ioxide.Transport)
            writer.write((await reader.read(100)).upper())
            writer.close()

        path = str(tmp_path / "socket")
        async with await asyncio.start_unix_server(shout, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"unix")
            assert b"UNIX" == await reader.read()
            writer.close()
            await writer.wait_closed()

        got: asyncio.Future[bytes] = loop.create_future()

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _addr: object) -> None:
                got.set_result(data)

        receiver, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        sender, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiver.get_extra_info("sockname")
        )
        sender.sendto(b"datagram")
        assert b"datagram" == await got
        sender.close()
        receiver.close()

        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "print(input()[::-1])",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert b"dlihc\n" == (await child.communicate(b"child\n"))[0]
        assert 0 == child.returncode

        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            await loop.sock_sendall(left, b"plain")
            assert b"plain" == right.recv(5)
        assert 0 == loop.driver.counters().accepts + loop.driver.counters().adoptions

    run(main())


def test_sendfile_falls_back() -> None:
    """loop.sendfile() sends a file through the transport, and says so when it must not."""
    content = random.Random(12).randbytes(2 * MIB)

    async def main(file: IO[bytes]) -> None:
        loop = the_loop()
        protocol = Recorder()
        async with pair(protocol) as peer:
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(protocol.transport, file, fallback=False)
            file.seek(0)
            reading = asyncio.create_task(peer.read(len(content)))
            assert len(content) == await loop.sendfile(protocol.transport, file)
            assert hashlib.sha256(content).digest() == hashlib.sha256(await reading).digest()

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        run(main(file))


def test_an_interrupt_in_a_callback_loses_nothing() -> None:
    """KeyboardInterrupt leaves run_forever(), as in asyncio; the rest comes when it runs again."""
    sent = random.Random(13).randbytes(600_000)

    class Interrupted(Recorder):
        def data_received(self, data: bytes) -> None:
            first = not self.data
            super().data_received(data)
            if first:
                raise KeyboardInterrupt

    protocol = Interrupted()
    loop = ioxide.new_event_loop(SMALL)
    try:
        server = loop.run_until_complete(loop.create_server(lambda: protocol, "127.0.0.1", 0))
        with socket.create_connection(server.sockets[0].getsockname(), TIMEOUT) as client:
            sender = threading.Thread(target=client.sendall, args=(sent,))
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(TIMEOUT))
            loop.run_until_complete(
                until(lambda: len(protocol.data) == len(sent), "the rest of the bytes")
            )
            sender.join(TIMEOUT)
            assert hashlib.sha256(sent).digest() == hashlib.sha256(protocol.data).digest()
        loop.run_until_complete(until(lambda: "lost" in protocol.calls, "connection_lost()"))
        server.close()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.issue(97)
def test_clocks_are_a_handlers_alone() -> None:
    """The same configuration cuts an idle handler and a stalled flush off, and no transport."""

    async def stall(stream: Stream) -> None:
        if await stream.recv() == b"write":
            stream.write(b"z" * (8 * MIB))
            await stream.flush()
        await stream.recv()

    clocks = {"read_timeout_ms": 300, "send_timeout_ms": 300}
    with (
        serve(Face.TRANSPORT, stall, **clocks) as transports,
        connect(transports) as idle,
        connect(transports, rcvbuf=4096) as stalled,
    ):
        idle.sendall(b"read")
        stalled.sendall(b"write")
        blocking_until(lambda: transports.stats().bytes_received == 9, "both requests")
        blocking_until(lambda: transports.stats().sends == 1, "a SEND behind a closed window")
        # The same again for handlers, later: when their clocks have run out, so would the others'.
        with (
            serve(Face.HANDLER, stall, **clocks) as handlers,
            connect(handlers) as cut_idle,
            connect(handlers, rcvbuf=4096) as cut_stalled,
        ):
            cut_idle.sendall(b"read")
            cut_stalled.sendall(b"write")
            blocking_until(lambda: handlers.stats().read_timeouts == 1, "the read clock")
            blocking_until(lambda: handlers.stats().send_timeouts == 1, "the send clock")
            for client in (cut_idle, cut_stalled):
                with pytest.raises(ConnectionResetError):
                    read_to_end(client)
        on_reactor(transports.reactors[0], lambda: None)  # a tick, which looks at the clocks
        stats = transports.stats()
        assert (0, 0, 2) == (stats.read_timeouts, stats.send_timeouts, stats.connections_now)
        idle.sendall(b"done")
        assert b"" == read_to_end(idle)
        assert b"z" * 4096 == read_exactly(stalled, 4096)


@pytest.mark.issue(97)
def test_transports_do_not_count_for_the_cap() -> None:
    """A handler that opens connections of its own takes no place from its server's clients."""

    async def handler(conn: ioxide.Connection) -> None:
        port = conn.sockname[1]
        if await conn.recv() == b"open":
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", other.port)
                writers.append(writer)
                readers.append(reader)
        conn.write(b"%d" % port)
        await conn.recv()
        for writer in writers:
            writer.close()

    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    with (
        support_serve(stream_echo) as other,
        support_serve(handler, max_connections=2) as server,
        connect(server) as one,
    ):
        one.sendall(b"open")
        assert b"%d" % server.port == one.recv(10)
        assert (3, 4) == (server.stats().adoptions, server.stats().connections_now)
        with connect(server) as two:
            blocking_until(lambda: server.stats().accepts == 2, "a place for the second client")
            two.sendall(b"count")
            assert b"%d" % server.port == two.recv(10)
            with connect(server) as three:
                assert b"" == read_to_end(three)
        assert 1 == server.stats().accepts_shed
        one.shutdown(socket.SHUT_WR)
        blocking_until(lambda: server.stats().connections_now == 0, "all ends")


def test_stop_leaves_a_handlers_own_connections_to_it() -> None:
    """Server.stop() ends its clients' streams; what a handler has opened still answers it."""
    answers: list[bytes] = []
    opened = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", other.port)
        opened.set()
        assert b"" == await conn.recv()  # the server stops
        writer.write(b"still there?")
        answers.append(await reader.read(100))
        writer.close()
        await writer.wait_closed()

    with support_serve(stream_echo) as other:
        with support_serve(handler) as server, connect(server):
            assert opened.wait(TIMEOUT)
            server.stop()
        assert 0 == server.stats().handler_faults
    assert [b"still there?"] == answers


def test_the_policy_makes_our_loops() -> None:
    """Where Python still has event loop policies, ours makes an ioxide.Loop."""
    if sys.version_info >= (3, 14):
        assert not hasattr(ioxide, "EventLoopPolicy")
        return
    asyncio.set_event_loop_policy(ioxide.EventLoopPolicy())
    try:
        loop = asyncio.new_event_loop()
        assert isinstance(loop, ioxide.Loop)
        loop.close()
    finally:
        asyncio.set_event_loop_policy(None)


def _unsent(sock: socket.socket) -> int:
    """What the peer's kernel still holds (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])
