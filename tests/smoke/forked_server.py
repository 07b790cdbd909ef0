# SPDX-License-Identifier: MIT
"""A process that serves forks, and the child serves on its own; prints what the child's dog saw."""

from __future__ import annotations

import os
import time

import ioxide
from tests.support import TIMEOUT, connect, echo, read_exactly, serve


def _child() -> bool:
    async def block(conn: ioxide.Connection) -> None:
        deadline = time.monotonic() + TIMEOUT / 2  # before the client gives up
        while not server.stats().stalls and time.monotonic() < deadline:
            time.sleep(0.01)
        conn.write(b"k")

    with serve(block, stall_warning_ms=100) as server, connect(server) as client:
        assert b"k" == read_exactly(client, 1)
        return server.stats().stalls > 0  # a busy machine may add its own


def _main() -> None:
    with serve(echo) as server, connect(server) as client:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(into, str(_child()).encode())
            finally:
                os._exit(0)  # not through the parent's servers
        os.waitpid(child, 0)
        os.close(into)
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        print(os.read(out, 100).decode())


if __name__ == "__main__":
    _main()
