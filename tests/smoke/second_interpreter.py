# SPDX-License-Identifier: MIT
"""Imports ioxide in a second interpreter of this process too, then goes on in the first.

Prints what came of it, a line each.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from pathlib import Path
from typing import Any

import ioxide

INSIDE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
try:
    import ioxide
except ImportError as error:
    print(error, flush=True)
else:
    print("imported", flush=True)
"""


def _run(code: str) -> None:
    """In a new interpreter under the same GIL: one with its own refuses every module like ours."""
    new = sys.version_info >= (3, 13)
    interpreters: Any = importlib.import_module("_interpreters" if new else "_xxsubinterpreters")
    if new:
        failed = interpreters.exec(interpreters.create("legacy"), code)
        assert failed is None, failed
    else:
        interpreters.run_string(interpreters.create(isolated=False), code)


async def _handler(conn: ioxide.Connection) -> None:
    try:
        await asyncio.wait_for(conn.recv(), 0.05)
    except TimeoutError:  # which it becomes only when the CancelledError is asyncio's own
        conn.write(b"timed out")


def main() -> None:
    _run(INSIDE)
    config = ioxide.ServerConfig(port=0, ring_entries=64, recv_slots=64)
    with ioxide.Server(_handler, config) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(30)
            print(client.recv(100).decode())


if __name__ == "__main__":
    main()
