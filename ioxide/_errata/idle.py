# SPDX-License-Identifier: MIT
"""What a ring that only waits looks like from outside."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._probe.rawring import RawRing

RINGS = 4
SETTLE_S, LOOK_S = 0.2, 0.6
WAIT_MS = 2_000.0


def _blocked() -> int:
    """How many tasks of the machine wait for input or output, as the kernel counts."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("procs_blocked "):
            return int(line.split()[1])
    raise AssertionError("/proc/stat has no procs_blocked")


def least_blocked() -> int:
    """The fewest blocked tasks of many looks: what else the machine does comes and goes."""
    end, least = time.monotonic() + LOOK_S, _blocked()
    while time.monotonic() < end:
        time.sleep(0.005)
        least = min(least, _blocked())
    return least


@reproducer("IOX-ERR-017")
def idle_rings_and_blocked_tasks() -> None:
    """IOX-ERR-017: a thread that waits in a ring for a peer does not count as waiting for a disk.

    https://github.com/axboe/liburing/issues/943: since 6.5 and 6.1.39; IORING_ENTER_NO_IOWAIT
    (6.15) is the way out.
    """
    before = least_blocked()
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(RINGS)]
        for near, far in pairs:
            stack.enter_context(near)
            stack.enter_context(far)
        begun = threading.Barrier(RINGS + 1)
        came: list[int] = []

        def wait(far: socket.socket) -> None:
            with RawRing() as ring:
                ring.provide(group=1, entries=2, size=64)
                ring.recv(far.fileno(), group=1)
                ring.enter()
                begun.wait()
                came.extend(c.res for c in ring.collect(1, timeout_ms=WAIT_MS))

        threads = [threading.Thread(target=wait, args=(far,)) for _, far in pairs]
        for thread in threads:
            thread.start()
        begun.wait()
        time.sleep(SETTLE_S)
        during = least_blocked()
        for near, _ in pairs:
            near.sendall(b"x")
        for thread in threads:
            thread.join()
        # The control: all of them waited until they were sent something.
        assert [1] * RINGS == came, came
    if during >= before + RINGS:
        raise ErratumPresent(
            "IOX-ERR-017",
            f"at least {during} tasks of the machine blocked while {RINGS} rings waited, "
            f"{before} before",
        )
