# SPDX-License-Identifier: MIT
"""Libraries that know nothing of ioxide, on its loop: their bytes go through the ring.

Each is imported by the test that uses it. All of them take an emulated processor several seconds,
which whoever collects this file without running it would spend for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import ioxide
from tests.support import SMALL, TIMEOUT, Whole, noise

if TYPE_CHECKING:
    import aiohttp.web
    import trustme
    import websockets.asyncio.server

MIB = 1 << 20
BODY = noise(MIB, seed=14)


def run(main: Coroutine[Any, Any, object]) -> ioxide.Counters:
    """Run `main` on a ring; what it has counted."""

    async def bounded() -> ioxide.Counters:
        await asyncio.wait_for(main, 2 * TIMEOUT)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ioxide.Loop)
        return loop.driver.counters()

    return ioxide.run(bounded(), config=SMALL)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    import trustme

    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("upgrade", [False, True], ids=["from-the-start", "start_tls"])
def test_tls_streams(authority: trustme.CA, upgrade: bool) -> None:
    """1 MiB through TLS comes back, with TLS from the first byte or after a plain beginning."""

    async def main() -> None:
        inside = server_context(authority)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if upgrade:
                assert b"STARTTLS\n" == await reader.readline()
                writer.write(b"go\n")
                await writer.start_tls(inside)
            await echo(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if upgrade else inside)
        outside = client_context(authority)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            ssl=None if upgrade else outside,
        )
        if upgrade:
            writer.write(b"STARTTLS\n")
            assert b"go\n" == await reader.readline()
            await writer.start_tls(outside, server_hostname="127.0.0.1")
        assert writer.get_extra_info("ssl_object") is not None
        answer = asyncio.create_task(reader.readexactly(MIB))
        writer.write(BODY)
        await writer.drain()
        assert Whole(BODY) == Whole(await answer)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    stats = run(main())
    assert (1, 1) == (stats.accepts, stats.adoptions)
    assert stats.bytes_received > 2 * MIB


def test_a_client_that_does_not_trust_harms_nobody(authority: trustme.CA) -> None:
    """A failed handshake ends that connection; the server takes the next one."""

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context(authority))
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(authority)
        )
        writer.write(b"trusted")
        assert b"trusted" == await reader.readexactly(7)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    assert 2 == run(main()).accepts


def test_aiohttp_serves_and_asks() -> None:
    """aiohttp's server echoes 1 MiB to aiohttp's client, twice over one connection."""
    import aiohttp
    import aiohttp.web

    async def main() -> None:
        async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
            return aiohttp.web.Response(body=await request.read())

        app = aiohttp.web.Application(client_max_size=2 * MIB)
        app.router.add_post("/", handle)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(url, data=BODY) as response:
                    assert Whole(BODY) == Whole(await response.read())
        await runner.cleanup()

    stats = run(main())
    assert (1, 1) == (stats.accepts, stats.adoptions)
    assert stats.bytes_received > 4 * MIB


async def application(_scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers with the body that it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def uvicorn_server() -> AsyncIterator[int]:
    """uvicorn, unmodified, on the running loop; its port."""
    import uvicorn

    config = uvicorn.Config(application, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def test_uvicorn_answers_httpx() -> None:
    """uvicorn on the loop answers httpx on the loop: 1 MiB there and back."""
    import httpx

    async def main() -> None:
        async with uvicorn_server() as port, httpx.AsyncClient(timeout=TIMEOUT) as client:
            for _ in range(2):
                response = await client.post(f"http://127.0.0.1:{port}/", content=BODY)
                assert 200 == response.status_code
                assert Whole(BODY) == Whole(response.content)

    stats = run(main())
    assert (1, 1) == (stats.accepts, stats.adoptions)


def test_websockets_talk() -> None:
    """A message of 1 MiB comes back through the websockets library, and the closing handshake."""
    import websockets.asyncio.client
    import websockets.asyncio.server

    async def main() -> None:
        async def handle(connection: websockets.asyncio.server.ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        async with websockets.asyncio.server.serve(
            handle, "127.0.0.1", 0, max_size=2 * MIB, compression=None
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with websockets.asyncio.client.connect(
                f"ws://127.0.0.1:{port}", max_size=2 * MIB, compression=None
            ) as client:
                await client.send(BODY)
                answer = await client.recv()
                assert isinstance(answer, bytes)
                assert Whole(BODY) == Whole(answer)

    stats = run(main())
    assert (1, 1) == (stats.accepts, stats.adoptions)
