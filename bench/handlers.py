# SPDX-License-Identifier: MIT
"""The plaintext server's handler, and what it is asked and answers."""

from __future__ import annotations

import ioxide

REQUEST = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"


async def plaintext(conn: ioxide.Connection) -> None:
    """Answer whatever arrives at once; the load generator sends a request in one segment."""
    while await conn.recv():
        conn.write(ANSWER)
