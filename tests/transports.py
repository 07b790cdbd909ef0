# SPDX-License-Identifier: MIT
"""asyncio programs on a ring, for tests: a protocol that notes its callbacks, and its peer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import ioxide
from tests.support import SMALL, TIMEOUT, open_fds, read_exactly, read_to_end

T = TypeVar("T")


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
    assert open_fds() <= before
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


class Peer:
    """The other end: a plain blocking socket, used on a thread of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def _call(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(call, *args)

    async def send(self, data: bytes) -> None:
        await self._call(self.sock.sendall, data)

    async def read(self, size: int) -> bytes:
        return await self._call(read_exactly, self.sock, size)

    async def read_to_end(self) -> bytes:
        return await self._call(read_to_end, self.sock)

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
