# SPDX-License-Identifier: MIT
"""The smallest HTTP answer: ``python -m ioxide serve examples.hello:handler``."""

from __future__ import annotations

import ioxide

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"


async def handler(conn: ioxide.Connection) -> None:
    """Answer every request head; bodies are not expected."""
    rest = b""
    while data := await conn.recv():
        *requests, rest = (rest + data).split(b"\r\n\r\n")
        for _ in requests:
            conn.write(RESPONSE)


if __name__ == "__main__":
    with ioxide.Server(handler, ioxide.ServerConfig(port=8080)) as server:
        print(f"http://127.0.0.1:{server.port}/")
        server.wait()
