# SPDX-License-Identifier: MIT
"""A handler for `python -m ioxide serve`, in a module that takes a guest no time to import."""

from __future__ import annotations

import ioxide


async def leave(conn: ioxide.Connection) -> None:
    """Take the reactor along, once a byte has come."""
    await conn.recv()
    raise SystemExit(7)
