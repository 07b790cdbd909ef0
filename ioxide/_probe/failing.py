# SPDX-License-Identifier: MIT
"""The experiment on faults on demand: a kernel that was built to be tested."""

from __future__ import annotations

import errno
import os

from ioxide._probe.outcome import Outcome, refused, verdict
from ioxide._probe.rawring import RawRing, os_error
from ioxide._ring import lib

FAIL_NTH = "/proc/thread-self/fail-nth"
_MOST = 8
_WAIT_MS = 200


def fail_nth() -> Outcome:
    """The kernel has no memory to keep a completion that does not fit into the queue, and drops it.

    It asks for that memory with GFP_ATOMIC (io_cqring_event_overflow(), 6.1 to 7.3), which failslab
    lets fail without being told more in debugfs. What it asks for before may fail first.
    """
    try:
        file = os.open(FAIL_NTH, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return refused(-errno.ENOENT, f"to open {FAIL_NTH}")
    try:
        for nth in range(1, _MOST + 1):
            failed, result = _overflowed(file, nth)
            if result == -errno.EBADR or not failed:
                break
    finally:
        os.close(file)
    evidence: dict[str, object] = {"nth": nth, "failed": failed, "result": result}
    seen = failed and result == -errno.EBADR
    return verdict(seen, evidence, "no completion was dropped for want of memory")


def _overflowed(file: int, nth: int) -> tuple[bool, int]:
    """Whether the nth allocation of the call that overflows a queue of two failed, and what the
    next call says: -EBADR of a completion that is lost."""
    with RawRing(2, cq_entries=2) as ring:
        for number in range(2):
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=number)
        if (result := ring.enter()) < 0:
            raise os_error(result, "io_uring_enter")
        ring.push(lib.IOX_PROBE_OP_NOP, user_data=2)
        os.write(file, str(nth).encode())
        ring.enter()
        left = int(os.pread(file, 16, 0))  # 0 once an allocation has failed
        os.write(file, b"0")
        ring.reap()
        return left == 0, ring.enter(wait=1, timeout_ms=_WAIT_MS)
