# SPDX-License-Identifier: MIT
"""asyncio's transports as a face of the connection core: their contract, callback by callback."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import random
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import ioxide
from tests.support import SMALL, TIMEOUT, open_fds

T = TypeVar("T")
MIB = 1 << 20


def run(main: Coroutine[Any, Any, T], **changes: object) -> T:
    """Run `main` on a ring with small buffers; nothing of it is left afterwards."""
    before = open_fds()
    faults: list[dict[str, Any]] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        result = await asyncio.wait_for(main, TIMEOUT)
        assert [] == faults
        return result

    result = ioxide.run(bounded(), config=SMALL.replace(**changes))
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
    """While paused no callback comes and next to nothing is received; then every byte, in order."""
    sent = random.Random(2).randbytes(8 * MIB)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            protocol.transport.pause_reading()
            assert not protocol.transport.is_reading()
            sending = asyncio.create_task(peer.send(sent))
            await standstill(lambda: _unsent(peer.sock))  # the peer meets a closed window
            assert not sending.done()
            assert ["made"] == protocol.calls
            assert the_loop().driver.counters().bytes_received < 64 * 4096
            protocol.transport.resume_reading()
            await sending
            await until(lambda: len(protocol.data) == len(sent), "every byte")
            assert hashlib.sha256(sent).digest() == hashlib.sha256(protocol.data).digest()

    run(main())


def _unsent(sock: socket.socket) -> int:
    """What the peer's kernel still holds (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])
