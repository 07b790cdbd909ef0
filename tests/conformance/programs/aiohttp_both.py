# SPDX-License-Identifier: MIT
"""aiohttp's server and client, with WebSockets, on one loop."""

from __future__ import annotations

import socket as sockets
import ssl

import aiohttp
from aiohttp import web

from tests.conformance.programs.common import HOST, TLS, certificate, run, server_context


async def _body(request: web.Request) -> web.Response:
    return web.Response(body=(await request.read())[::-1])


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


async def main() -> None:
    with certificate() as (chain, key, root):
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/", _body)
        app.router.add_get("/socket", _socket)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, ssl_context=server_context(chain, key) if TLS else None)
        await site.start()
        port = runner.addresses[0][1]
        trusted = ssl.create_default_context(cafile=root) if TLS else True
        url = f"{'https' if TLS else 'http'}://localhost:{port}"
        connector = aiohttp.TCPConnector(family=sockets.AF_INET)
        async with aiohttp.ClientSession(connector=connector) as session:
            data = bytes(range(256)) * 8192
            for _ in range(5):
                async with session.post(url, data=data, ssl=trusted) as answer:
                    assert data[::-1] == await answer.read()
            async with session.ws_connect(f"{url}/socket", ssl=trusted) as socket:
                for number in range(20):
                    await socket.send_str(f"word {number}")
                    assert f"WORD {number}" == await socket.receive_str()
        await runner.cleanup()


if __name__ == "__main__":
    run(main())
