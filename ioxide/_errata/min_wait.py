# SPDX-License-Identifier: MIT
"""A minimum wait (IORING_FEAT_MIN_TIMEOUT, 6.12) that ends too late, or for nothing.

What is measured is decided by bounds that an emulated processor cannot miss: between "a second"
and "five seconds" lies more than any stall seen, and a wait that ended early did so on any machine.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ioxide._errata.connections import REACTOR_FLAGS
from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._probe.rawring import WAIT_MS, RawRing
from ioxide._ring import lib

SETUP_SQPOLL = 1 << 1  # IORING_SETUP_SQPOLL
ENTER_SQ_WAKEUP = 1 << 1  # IORING_ENTER_SQ_WAKEUP
Waits = TypeVar("Waits")
KINDS = {"plain": 0, "deferred": REACTOR_FLAGS, "sqpoll": SETUP_SQPOLL}

SQE_CQE_SKIP_SUCCESS = 1 << 6  # IOSQE_CQE_SKIP_SUCCESS, 5.17

MIN_MS, LATE_MS, FULL_MS = 20, 1_000, 5_000
SILENT_MS, SILENT_FULL_MS = 300, 1_000
CONTROL_S = 60.0
"""How long a busy machine may spoil the control; far beyond any stall seen."""


def _on_each_kind(measure: Callable[[int], Waits]) -> dict[str, Waits]:
    """What is measured, by kind of ring, with a thread each: one after the other they would wait
    for half a minute on a kernel that is bad."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        return dict(zip(KINDS, pool.map(measure, KINDS.values()), strict=True))


def _submit(ring: RawRing, flags: int) -> None:
    """Submit the one request that is queued, to its end: the thread of an SQPOLL ring may have
    taken it before the call counts what is left, or not yet when the call returns."""
    wakeup = ENTER_SQ_WAKEUP if flags & SETUP_SQPOLL else 0
    deadline = time.monotonic() + WAIT_MS / 1000
    submitted = ring.enter(flags=wakeup)
    if not wakeup:
        assert submitted == 1, f"the receive was not submitted: {submitted}"
        return
    while submitted != 0:
        assert submitted == 1, f"the receive was not submitted: {submitted}"
        assert time.monotonic() < deadline, "the ring's thread never took the receive"
        time.sleep(0.001)
        submitted = ring.enter(flags=wakeup)


def _late_wait(flags: int) -> tuple[float, float]:
    """One wait for eight completions, of which one comes late: when it came and when the wait
    ended, in ms."""
    near, far = socket.socketpair()
    with near, far, RawRing(flags=flags) as ring:
        ring.provide(group=1, entries=2, size=64)
        ring.recv(far.fileno(), group=1)
        _submit(ring, flags)
        sent: list[float] = []

        def send() -> None:
            near.sendall(b"late")
            sent.append(time.monotonic())

        timer = threading.Timer(LATE_MS / 1000, send)
        begun = time.monotonic()
        timer.start()
        try:
            ring.enter(wait=8, timeout_ms=FULL_MS, min_wait_us=MIN_MS * 1000)
            ended = time.monotonic()
        finally:
            timer.join()
        # The control: the one completion there is came of what was sent.
        found = ring.collect(1)
        assert [4] == [c.res for c in found], "the late completion never came"
    return (sent[0] - begun) * 1000, (ended - begun) * 1000


@reproducer("IOX-ERR-007", needs=("MIN_WAIT",))
def late_completion_ends_the_wait() -> None:
    """IOX-ERR-007: after the minimum the first completion ends the wait, on each kind of ring.

    https://github.com/axboe/liburing/issues/1477 and 1504.  Best of three on each kind.
    """
    late = []
    for kind, waits in _on_each_kind(_late_waits).items():
        if _in_time(waits) < 2:
            shown = ", ".join(f"came after {came:.0f} ms, ended after {e:.0f}" for came, e in waits)
            late.append(f"{kind} ring: {shown}")
    if late:
        raise ErratumPresent("IOX-ERR-007", f"a wait of {MIN_MS} to {FULL_MS} ms, {late}")


def _late_waits(flags: int) -> list[tuple[float, float]]:
    waits: list[tuple[float, float]] = []
    while not _decided(waits):
        waits.append(_late_wait(flags))
    return waits


def _in_time(waits: list[tuple[float, float]]) -> int:
    return sum(ended < (came + FULL_MS) / 2 for came, ended in waits)


def _decided(waits: list[tuple[float, float]]) -> bool:
    return _in_time(waits) >= 2 or len(waits) - _in_time(waits) >= 2


@reproducer("IOX-ERR-008", needs=("MIN_WAIT",))
def wait_is_not_ended_by_nothing() -> None:
    """IOX-ERR-008: a request that posts no completion does not end the wait after the minimum.

    https://github.com/axboe/liburing/issues/1504: where a late completion was made to end the wait,
    any wake-up of the task ended it.  A request with CQE_SKIP_SUCCESS wakes it and posts nothing.
    """
    early = []
    for kind, (came, ended, result) in _on_each_kind(_undisturbed_wait).items():
        # The control: the request was done while the wait went on, or it ended before.
        assert came < SILENT_FULL_MS - 200, f"{kind} ring: the bytes were sent after {came:.0f} ms"
        if ended < SILENT_FULL_MS:
            early.append(f"{kind} ring: ended after {ended:.0f} ms with {result} and none")
        else:
            assert result == -errno.ETIME, f"{kind} ring: {result} after {ended:.0f} ms"
    if early:
        raise ErratumPresent(
            "IOX-ERR-008",
            f"a wait of {MIN_MS} to {SILENT_FULL_MS} ms for eight completions, {early}",
        )


def _undisturbed_wait(flags: int) -> tuple[float, float, int]:
    """A silent wait that no busy machine spoiled, as its control says, if one comes in time."""
    deadline = time.monotonic() + CONTROL_S
    while True:
        came, ended, result = _silent_wait(flags)
        kept = came < SILENT_FULL_MS - 200 and result != -errno.EINTR
        if kept or time.monotonic() >= deadline:
            return came, ended, result


def _silent_wait(flags: int) -> tuple[float, float, int]:
    """One wait during which a request ends that posts nothing: when its bytes were sent and when
    the wait ended, in ms, and the wait's result."""
    near, far = socket.socketpair()
    with near, far, RawRing(flags=flags) as ring:
        into = bytearray(16)
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            addr=ring.keep(into),
            len=len(into),
            flags=SQE_CQE_SKIP_SUCCESS,
        )
        _submit(ring, flags)
        sent: list[float] = []

        def send() -> None:
            sent.append(time.monotonic())
            near.sendall(b"quiet")

        timer = threading.Timer(SILENT_MS / 1000, send)
        begun = time.monotonic()
        timer.start()
        try:
            result = ring.enter(wait=8, timeout_ms=SILENT_FULL_MS, min_wait_us=MIN_MS * 1000)
            ended = begun + ring.last_us / 1_000_000
        finally:
            timer.join()
        # The control: the receive did take the bytes, and nothing was posted.
        ring.enter(flags=ENTER_SQ_WAKEUP if flags & SETUP_SQPOLL else 0)
        _settled(into)
        assert ring.ready == 0, "a completion was posted after all"
    return (sent[0] - begun) * 1000, (ended - begun) * 1000, result


def _settled(into: bytearray) -> None:
    deadline = time.monotonic() + WAIT_MS / 1000
    while into[:5] != b"quiet":
        assert time.monotonic() < deadline, f"the receive put {bytes(into)!r}"
        time.sleep(0.001)
