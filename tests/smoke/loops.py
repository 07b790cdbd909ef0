# SPDX-License-Identifier: MIT
"""What a loop is asked to do in the tests of threads and forks."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.support import TIMEOUT


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()
    await writer.wait_closed()


async def talk() -> bytes:
    """Bytes that went through an echo server on this very loop; both ends are closed."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo(reader, writer)
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    await ended.wait()
    server.close()
    await server.wait_closed()
    return answer


class EchoProtocol(asyncio.Protocol):
    """Echoes; `made` has all of them."""

    made: list[EchoProtocol]

    def __init__(self) -> None:
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()
        EchoProtocol.made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost.set_result(None)


async def left_open() -> tuple[asyncio.Server, socket.socket]:
    """A server and one client of it, which has been answered."""
    EchoProtocol.made = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname(), TIMEOUT)
    await say(client, b"x")
    return server, client


async def say(client: socket.socket, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    client.sendall(data)
    assert data == await loop.run_in_executor(None, client.recv, len(data))
