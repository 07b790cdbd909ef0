# SPDX-License-Identifier: MIT
"""MIN_WAIT: io_uring_enter(2) with a minimum wait, IORING_FEAT_MIN_TIMEOUT (6.12).

The full wait is 20 s in all of these, so that "long before it" needs no measuring.
"""

from __future__ import annotations

import errno
import socket
import threading

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("MIN_WAIT")]

FULL_MS = 20_000
HALF_US = FULL_MS * 1000 // 2


def test_ready_completion_waits_for_the_minimum_only() -> None:
    """Two of eight are ready: the wait ends after 80 ms with both, not at once nor after 20 s."""
    with RawRing(flags=REACTOR_FLAGS) as ring:
        ring.push(lib.IOX_PROBE_OP_NOP, user_data=1)
        ring.push(lib.IOX_PROBE_OP_NOP, user_data=2)
        assert ring.enter(wait=8, timeout_ms=FULL_MS, min_wait_us=80_000) == 2
        assert [1, 2] == [c.user_data for c in ring.reap()]
        assert 80_000 <= ring.last_us < HALF_US


def test_late_completion_ends_the_wait() -> None:
    """Nothing is ready at the minimum: the first completion after it ends the wait, alone."""
    near, far = socket.socketpair()
    with near, far, RawRing(flags=REACTOR_FLAGS) as ring:
        ring.provide(group=1, entries=2, size=64)
        ring.recv(far.fileno(), group=1)
        timer = threading.Timer(0.3, near.sendall, (b"late",))
        timer.start()
        try:
            ring.enter(wait=8, timeout_ms=FULL_MS, min_wait_us=50_000)
        finally:
            timer.join()
        assert [4] == [c.res for c in ring.reap()]
        assert 50_000 <= ring.last_us < HALF_US


def test_idle_ring_waits_in_full() -> None:
    """The minimum does not wake an idle ring: -ETIME comes at the full time."""
    with RawRing(flags=REACTOR_FLAGS) as ring:
        result = ring.enter(wait=8, timeout_ms=300, min_wait_us=50_000)
        assert -errno.ETIME == result
        assert ring.last_us >= 300_000


def test_enough_completions_do_not_wait_at_all() -> None:
    """With as many completions as are waited for, even a minimum of 10 s is not waited."""
    with RawRing(flags=REACTOR_FLAGS) as ring:
        for number in range(4):
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=number)
        assert ring.enter(wait=4, timeout_ms=FULL_MS, min_wait_us=10_000_000) == 4
        assert [0, 1, 2, 3] == [c.user_data for c in ring.reap()]
        assert ring.last_us < 10_000_000
