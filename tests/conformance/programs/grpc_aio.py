# SPDX-License-Identifier: MIT
"""grpc.aio: a server and a client on one loop; its sockets are its own, its wake-ups the loop's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio  # type: ignore[import-untyped]

from tests.conformance.programs.common import HOST, TLS, certificate, run


async def _echo(request: bytes, _context: Any) -> bytes:
    return request[::-1]


async def main() -> None:
    with certificate() as (chain, key, root):
        server: Any = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(_echo)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", {"Call": method}),)
        )
        pems = [Path(name).read_bytes() for name in (key, chain, root)]
        if TLS:
            credentials = grpc.ssl_server_credentials([(pems[0], pems[1])])
            port = server.add_secure_port(f"{HOST}:0", credentials)
            trusted = grpc.ssl_channel_credentials(pems[2])
            channel: Any = grpc.aio.secure_channel(f"localhost:{port}", trusted)
        else:
            port = server.add_insecure_port(f"{HOST}:0")
            channel = grpc.aio.insecure_channel(f"{HOST}:{port}")
        await server.start()
        async with channel:
            call = channel.unary_unary("/test.Echo/Call")
            for number in range(50):
                text = f"message {number}".encode()
                assert text[::-1] == await call(text)
        await server.stop(1)


if __name__ == "__main__":
    run(main())
