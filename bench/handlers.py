# SPDX-License-Identifier: MIT
"""The handlers of an `ioxide.Server` under test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import ioxide
from bench.scenes import PLAIN, REQUEST, Scene

__all__ = ["ANSWER", "REQUEST", "handler_of", "plaintext"]

ANSWER = PLAIN.answer


async def plaintext(conn: ioxide.Connection) -> None:
    """Answer whatever arrives at once; the load generator sends a request in one segment."""
    while await conn.recv():
        conn.write(ANSWER)


def handler_of(scene: Scene) -> Callable[[ioxide.Connection], Awaitable[None]]:
    """What serves that scene."""
    if scene == PLAIN:
        return plaintext
    answer, size = scene.answer + b"x" * scene.download, len(scene.request) + scene.upload

    async def simple(conn: ioxide.Connection) -> None:
        while await conn.recv():
            conn.write(answer)

    async def counting(conn: ioxide.Connection) -> None:
        got = 0
        while data := await conn.recv():
            got += len(data)
            while got >= size:
                got -= size
                conn.write(answer)

    return simple if scene.simple else counting
