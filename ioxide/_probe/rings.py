# SPDX-License-Identifier: MIT
"""Experiments on the ring itself: how it is set up, entered, and what it does when it is full."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import ExitStack

from ioxide._probe.outcome import REFUSALS, Outcome, described, open_ring, refused, verdict
from ioxide._probe.rawring import WAIT_MS, RawRing, os_error
from ioxide._ring import ffi, lib


def registered_ring_fd() -> Outcome:
    """A ring is entered through its index; the index is of no use before or after."""
    with RawRing() as ring:
        index = int(lib.iox_probe_ring_fd_register(ring.raw))
        if -index in REFUSALS:
            return refused(index, "IORING_REGISTER_RING_FDS")
        if index < 0:  # EBUSY: all sixteen places of this thread are taken
            raise OSError(-index, os.strerror(-index))
        try:
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=98)
            by_index = ring.enter(wait=1, fd=index, flags=lib.IOX_ENTER_REGISTERED_RING)
            found = ring.reap()
        finally:
            removed = int(lib.iox_probe_ring_fd_unregister(ring.raw, index))
        after = ring.enter(fd=index, flags=lib.IOX_ENTER_REGISTERED_RING)
        evidence: dict[str, object] = {
            "index": index,
            "enter_by_index": by_index,
            "completions": described(found),
            "unregistered": removed,
            "enter_after_unregister": errno.errorcode.get(-after, str(after)),
        }
        seen = by_index == 1 and [c.user_data for c in found] == [98] and after == -errno.EBADF
        return verdict(seen, evidence, "entering by index did not work, or worked unregistered")


def single_issuer() -> Outcome:
    """Another thread is refused with EEXIST, the ring's own is not."""
    ring, refusal = open_ring(lib.IOX_SETUP_SINGLE_ISSUER)
    if ring is None:
        return refused(refusal, "IORING_SETUP_SINGLE_ISSUER")
    with ring:
        ring.push(lib.IOX_PROBE_OP_NOP)
        own = ring.enter(wait=1)
        ring.reap()
        ring.push(lib.IOX_PROBE_OP_NOP)
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(ring.enter()), daemon=True)
        thread.start()
        thread.join(WAIT_MS / 1000)
        other = results[0] if results else 0
        evidence: dict[str, object] = {
            "enter_own_thread": own,
            "enter_other_thread": errno.errorcode.get(-other, str(other)),
        }
        seen = own == 1 and other == -errno.EEXIST
        return verdict(seen, evidence, "another thread was not refused with EEXIST")


def _ready_without_enter(flags: int) -> tuple[int, int] | int:
    """Completions of an arrived message before and after an enter, or the set-up's refusal."""
    with ExitStack() as stack:
        near, far = (stack.enter_context(s) for s in socket.socketpair())
        ring, refusal = open_ring(flags)
        if ring is None:
            return refusal
        stack.enter_context(ring)
        buffers = ring.provide(group=7, entries=2, size=64)
        ring.recv(far.fileno(), group=buffers.group)
        ring.enter()
        near.sendall(b"deferred?")
        time.sleep(0.02)  # a plain ring's task work runs on the way out of any system call
        before = ring.ready
        ring.enter(wait=1)
        return before, ring.ready


def defer_taskrun() -> Outcome:
    """A completion is withheld until the thread enters, where a plain ring posts it at once."""
    flags = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN
    deferred = _ready_without_enter(flags)
    if isinstance(deferred, int):
        return refused(deferred, "IORING_SETUP_DEFER_TASKRUN")
    plain = _ready_without_enter(0)
    evidence: dict[str, object] = {
        "ready_before_enter": deferred[0],
        "ready_after_enter": deferred[1],
        "plain_ring_ready_before_enter": plain[0] if isinstance(plain, tuple) else plain,
    }
    seen = deferred == (0, 1) and plain == (1, 1)
    return verdict(seen, evidence, "the completion was not withheld until the enter")


def no_sqarray() -> Outcome:
    """A queue without index array takes requests in order, round its end too."""
    ring, refusal = open_ring(lib.IOX_SETUP_NO_SQARRAY)
    if ring is None:
        return refused(refusal, "IORING_SETUP_NO_SQARRAY")
    with ring:
        order: list[int] = []
        numbers = list(range(1, 3 * ring.sq_entries))
        for number in numbers:
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=number)
            ring.enter(wait=1)
            order += [c.user_data for c in ring.reap()]
        evidence: dict[str, object] = {
            "sq_entries": ring.sq_entries,
            "requests": len(numbers),
            "completions_in_order": order == numbers,
        }
        return verdict(order == numbers, evidence, "requests were lost or out of order")


def cq_overflow_flag() -> Outcome:
    """Twelve completions meet a queue of four: the flag is set, none is lost, the flag clears."""
    with RawRing(entries=4, cq_entries=4) as ring:
        sent = 0
        for _ in range(3):
            for _ in range(4):
                sent += 1
                ring.push(lib.IOX_PROBE_OP_NOP, user_data=sent)
            result = ring.enter()
            if result == -errno.EBUSY:  # tolerated: older kernels say so while they overflow
                break
        flagged = ring.cq_overflow
        in_queue = ring.ready
        got = [c.user_data for c in ring.reap()]
        deadline = time.monotonic() + WAIT_MS / 1000
        while len(got) < sent and time.monotonic() < deadline:
            ring.enter(wait=1, timeout_ms=100)
            got += [c.user_data for c in ring.reap()]
        evidence: dict[str, object] = {
            "flag_seen": flagged,
            "cq_entries": ring.cq_entries,
            "in_queue": in_queue,
            "posted": sent,
            "reaped": len(got),
            "flag_after": ring.cq_overflow,
        }
        seen = flagged and sorted(got) == list(range(1, sent + 1)) and not ring.cq_overflow
        return verdict(seen, evidence, "no overflow was flagged, or completions were lost")


def sq_rewind() -> Outcome:
    """Requests are taken from the queue's first place again and again; its tail never moves."""
    flags = lib.IOX_SETUP_NO_SQARRAY | lib.IOX_SETUP_SQ_REWIND
    ring, refusal = open_ring(flags)
    if ring is None:
        return refused(refusal, "IORING_SETUP_SQ_REWIND")
    with ring:
        numbers = list(range(1, 2 * ring.sq_entries))
        submitted, order = [], []
        for number in numbers:
            request = {"opcode": int(lib.IOX_PROBE_OP_NOP), "fd": -1, "user_data": number}
            sqe = ffi.new("struct iox_probe_sqe *", request)
            result = int(lib.iox_probe_enter_first(ring.raw, sqe, _REWIND_WAIT_US))
            submitted.append(result)
            order += [c.user_data for c in ring.reap()]
            if result != 1:
                break
        evidence: dict[str, object] = {
            "sq_entries": ring.sq_entries,
            "requests": len(numbers),
            "submitted": sum(n for n in submitted if n > 0),
            "completions_in_order": order == numbers,
        }
        note = "a request in the first place was not taken with the tail at zero"
        return verdict(order == numbers, evidence, note)


_REWIND_WAIT_US = 1_000_000

# struct io_uring_query_hdr and struct io_uring_query_opcode (<linux/io_uring/query.h>, 6.18).
_QUERY_HEADER, _QUERY_OPCODES = "uint32_t[10]", "uint64_t[7]"


def query() -> Outcome:
    """A query names as many opcodes and the same features as the two older ways to ask."""
    with RawRing() as ring:
        answer = ffi.new(_QUERY_OPCODES)
        where = int(ffi.cast("uintptr_t", answer))
        size = ffi.sizeof(answer)
        # Next entry, address of the data, query 0 (opcodes), its size, the result, and padding.
        header = ffi.new(_QUERY_HEADER, [0, 0, where & 0xFFFFFFFF, where >> 32, 0, size])
        result = ring.register(lib.IOX_REGISTER_QUERY, header, 0)
        if -result in REFUSALS:
            return refused(result, "IORING_REGISTER_QUERY")
        if result < 0:
            raise os_error(result, "IORING_REGISTER_QUERY")
        last = max(opcode for opcode in range(256) if ring.has_opcode(opcode))
        opcodes, features = int(answer[0]) & 0xFFFFFFFF, int(answer[1])
        evidence: dict[str, object] = {
            "opcodes": opcodes,
            "highest_supported": last,
            "register_opcodes": int(answer[0]) >> 32,
            "features": f"{features:#x}",
            "features_at_setup": f"{ring.features:#x}",
            "setup_flags": f"{int(answer[2]):#x}",
            "result": int(ffi.cast("int32_t", header[6])),
        }
        seen = evidence["result"] == 0 and opcodes > last and features == ring.features
        return verdict(seen, evidence, "the answer is not what the older ways to ask say")
