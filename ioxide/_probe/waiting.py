# SPDX-License-Identifier: MIT
"""Experiments on waiting: what the machine counts it as, and where its arguments are."""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from contextlib import ExitStack
from mmap import PAGESIZE, mmap
from pathlib import Path

from ioxide._probe.outcome import REFUSALS, Outcome, open_ring, refused, verdict
from ioxide._probe.rawring import WAIT_MS, RawRing, os_error
from ioxide._ring import ffi, lib

_WAITERS = 4
_SETTLE_S, _LOOK_S = 0.05, 0.15
_PATIENCE_S = 5.0


def blocked_tasks() -> int:
    """How many tasks of the machine wait for input or output, as its kernel counts them.

    :raises OSError: there is no such count.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("procs_blocked "):
            return int(line.split()[1])
    raise OSError(errno.ENODATA, "/proc/stat has no procs_blocked")


def _least_blocked() -> int:
    """The fewest of many looks: what else the machine does comes and goes."""
    end, least = time.monotonic() + _LOOK_S, blocked_tasks()
    while time.monotonic() < end:
        time.sleep(0.005)
        least = min(least, blocked_tasks())
    return least


def _blocked_while_waiting(flags: int) -> tuple[int, list[int]]:
    """The fewest blocked tasks while four rings wait for a byte, and what the waits returned."""
    results: list[int] = []
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(_WAITERS)]
        for near, far in pairs:
            stack.enter_context(near)
            stack.enter_context(far)
        ready = threading.Semaphore(0)

        def wait(far: socket.socket) -> None:
            try:
                with RawRing() as ring:
                    # Only a wait with a request in flight counts (since 6.5, io_uring/io_uring.c).
                    ring.push(lib.IOX_PROBE_OP_POLL_ADD, fd=far.fileno(), op_flags=select.POLLIN)
                    ring.enter()
                    ready.release()
                    results.append(ring.enter(wait=1, flags=flags))
            except OSError as error:
                results.append(-(error.errno or errno.EIO))
                ready.release()

        threads = [threading.Thread(target=wait, args=(far,), daemon=True) for _, far in pairs]
        for thread in threads:
            thread.start()
        for _ in threads:
            ready.acquire(timeout=WAIT_MS / 1000)
        time.sleep(_SETTLE_S)
        least = _least_blocked()
        for near, _ in pairs:
            near.sendall(b"x")
        for thread in threads:
            thread.join(2 * WAIT_MS / 1000)
    for result in results:
        if result < 0 and -result not in (*REFUSALS, errno.ETIME):
            raise os_error(result, "a wait of another thread")
    return least, results


def no_iowait() -> Outcome:
    """Four waits that are told so do not count as blocked tasks; four others do."""
    deadline = time.monotonic() + _PATIENCE_S
    ever_counted = False
    while True:  # a disk that others use can hide the difference for a while
        flagged, results = _blocked_while_waiting(lib.IOX_ENTER_NO_IOWAIT)
        for result in results:
            if -result in REFUSALS:
                return refused(result, "IORING_ENTER_NO_IOWAIT")
        before = _least_blocked()
        plain, _ = _blocked_while_waiting(0)
        counted = plain >= before + _WAITERS
        ever_counted |= counted
        seen = counted and flagged < before + _WAITERS // 2
        if seen or time.monotonic() >= deadline:
            break
    evidence: dict[str, object] = {
        "rings": _WAITERS,
        "blocked_before": before,
        "blocked_by_plain_waits": plain,
        "blocked_by_these_waits": flagged,
    }
    if not ever_counted:
        return Outcome(True, None, evidence, "plain waits do not count as blocked here either")
    return verdict(seen, evidence, "the waits count as blocked tasks all the same")


_MEM_REGION_USER = 1  # IORING_MEM_REGION_TYPE_USER
_MEM_REGION_WAIT = 1  # IORING_MEM_REGION_REG_WAIT_ARG
_WAIT_TS = 1  # IORING_REG_WAIT_TS
_ENTRY = 64  # struct io_uring_reg_wait: seconds, nanoseconds, min_wait and flags, the rest zero
_WAITS_MS = (30, 90)


def wait_region() -> Outcome:
    """Two waits last as long as the second entry of a registered region says, with no call between
    the two to tell the kernel that it has changed."""
    ring, refusal = open_ring(lib.IOX_SETUP_R_DISABLED)  # where alone the region is taken
    if ring is None:
        return refused(refusal, "IORING_SETUP_R_DISABLED")
    with ring:
        region = mmap(-1, PAGESIZE)
        # struct io_uring_region_desc, and struct io_uring_mem_region_reg that points to it.
        size = len(region)
        described = ffi.new("uint64_t[8]", [ring.keep(region), size, _MEM_REGION_USER])
        where = int(ffi.cast("uintptr_t", described))
        argument = ffi.new("uint64_t[4]", [where, _MEM_REGION_WAIT])
        result = ring.register(lib.IOX_REGISTER_MEM_REGION, argument)
        if -result in REFUSALS:
            return refused(result, "IORING_REGISTER_MEM_REGION")
        if result < 0:
            raise os_error(result, "IORING_REGISTER_MEM_REGION")
        if (result := ring.register(lib.IOX_REGISTER_ENABLE_RINGS, ffi.NULL, 0)) < 0:
            raise os_error(result, "IORING_REGISTER_ENABLE_RINGS")
        # What ends a wait that knows no end.
        ring.push(lib.IOX_PROBE_OP_TIMEOUT, addr=ring.keep_timespec(WAIT_MS / 1000), len=1)
        results, elapsed = [], []
        for wait_ms in _WAITS_MS:
            entry = ffi.new("int64_t[3]", [0, wait_ms * 1_000_000, _WAIT_TS << 32])
            region[_ENTRY : _ENTRY + 24] = bytes(ffi.buffer(entry))
            # A call that submits tells how many, and keeps quiet about the wait.
            ring.enter()
            result = int(lib.iox_probe_enter_by_region(ring.raw, 1, _ENTRY))
            if -result in REFUSALS:
                return refused(result, "IORING_ENTER_EXT_ARG_REG")
            results.append(errno.errorcode.get(-result, str(result)))
            elapsed.append(ring.last_us)
        evidence: dict[str, object] = {
            "asked_for_us": [wait_ms * 1000 for wait_ms in _WAITS_MS],
            "elapsed_us": elapsed,
            "results": results,
        }
        long_enough = all(e >= w * 1000 for e, w in zip(elapsed, _WAITS_MS, strict=True))
        seen = results == ["ETIME", "ETIME"] and long_enough
        return verdict(seen, evidence, "the waits did not last as long as the region says")
