# SPDX-License-Identifier: MIT
"""Writes to connections while the system has no memory for a slab, and again when it has.

Prints, as JSON, what came of each write, by `WriteOverflow`.
"""

from __future__ import annotations

import json
import resource
import socket
from pathlib import Path

from ioxide._common.config import WriteOverflow
from ioxide._driver.driver import Driver
from tests.support import SMALL, TIMEOUT

SLAB, MARGIN = 128 << 20, 32 << 20
"""A slab is what does not fit below the limit; everything else does."""


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _writes(overflow: WriteOverflow) -> list[str]:
    driver = Driver(
        SMALL.replace(write_slab_size=SLAB, write_limit=SLAB, pool_max=0, write_overflow=overflow)
    )
    driver.attach(loop=None, poll_fd=-1, on_connection=print, on_fault=print)
    told = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        conn = driver.adopt(ours.fileno(), True)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MARGIN, limits[1]))
        try:
            for _ in range(2):
                try:
                    conn.write(b"lost")
                    told.append("taken")
                except MemoryError:
                    told.append("MemoryError")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        conn.write(b"sent")
        driver.wait(0)
        theirs.settimeout(TIMEOUT)
        told.append(theirs.recv(100).decode())
        driver.close()
    return told


if __name__ == "__main__":
    print(json.dumps({overflow.value: _writes(overflow) for overflow in WriteOverflow}))
