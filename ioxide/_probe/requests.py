# SPDX-License-Identifier: MIT
"""Experiments on sending, accepting, waiting, timeouts and messages between rings."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import ExitStack

from ioxide._probe.outcome import (
    REFUSALS,
    Outcome,
    described,
    open_ring,
    payload,
    refusal_of,
    refused,
    stream_pair,
    verdict,
)
from ioxide._probe.rawring import WAIT_MS, Completion, RawRing
from ioxide._ring import lib


def send_zc() -> Outcome:
    """A zero-copy send posts its result with F_MORE, then the notification."""
    data = payload(16384)
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        if transport != "tcp":
            raise OSError(errno.ENETDOWN, "needs TCP over the loopback, which is down")
        ring = stack.enter_context(RawRing())
        for flags in (lib.IOX_SEND_ZC_REPORT_USAGE, 0):  # REPORT_USAGE came with 6.2 only
            ring.push(
                lib.IOX_PROBE_OP_SEND_ZC,
                fd=near.fileno(),
                addr=ring.keep(data),
                len=len(data),
                op_flags=socket.MSG_WAITALL,
                ioprio=flags,
            )
            found = ring.collect(1)
            if not (found and -found[0].res in REFUSALS):
                break
        if refusal := refusal_of(found, "IORING_OP_SEND_ZC"):
            return refusal
        got = b""
        while len(got) < len(data) and (piece := far.recv(len(data) - len(got))):
            got += piece
        if len(found) < 2:  # the notification may wait for the peer to have taken the bytes
            found += ring.collect(1)
        usage = "not reported"
        if flags and len(found) == 2:
            copied = found[1].res & 0xFFFFFFFF & lib.IOX_NOTIF_USAGE_ZC_COPIED
            usage = "copied" if copied else "zero copy"
        evidence: dict[str, object] = {
            "completions": described(found),
            "usage": usage,
            "bytes_intact": got == data,
        }
        seen = (
            [c.notif for c in found] == [False, True]
            and found[0].more
            and found[0].res == len(data)
            and got == data
        )
        return verdict(seen, evidence, "no result with F_MORE followed by a notification")


def multishot_accept() -> Outcome:
    """One request accepts two connections."""
    with ExitStack() as stack:
        # An autobound AF_UNIX address: no loopback and no file needed.
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind("")
        listener.listen(4)
        ring = stack.enter_context(RawRing())
        found: list[Completion] = []

        def close_accepted() -> None:
            for cqe in (*found, *ring.reap()):
                if cqe.res >= 0:
                    os.close(cqe.res)

        stack.callback(close_accepted)
        ring.push(
            lib.IOX_PROBE_OP_ACCEPT,
            fd=listener.fileno(),
            ioprio=lib.IOX_ACCEPT_MULTISHOT,
            op_flags=socket.SOCK_CLOEXEC,
        )
        for _ in range(2):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(WAIT_MS / 1000)
            client.connect(listener.getsockname())
            found += ring.collect(1)
            if not (found and found[-1].more):
                break  # there will be no second one
        if refusal := refusal_of(found, "a multishot accept"):
            return refusal
        flags = ["MORE" if c.more else "" for c in found]
        results = ["fd" if c.res >= 0 else str(c.res) for c in found]
        evidence: dict[str, object] = {"requests": 1, "results": results, "flags": flags}
        seen = results == ["fd", "fd"] and flags == ["MORE", "MORE"]
        return verdict(seen, evidence, "one request did not accept two connections with F_MORE")


_MIN_WAIT_US = 60_000
_FULL_WAIT_MS = 2_000
_PATIENCE_S = 20.0


def min_wait() -> Outcome:
    """One of eight awaited completions is there: the wait ends after the minimum, not at the end.

    The wait is 60 ms at least and 2 s at most, so that neither a scheduler's hiccup nor an emulated
    processor can be mistaken for either.
    """
    flags = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN
    ring, refusal = open_ring(flags)
    if ring is None:
        ring = RawRing()  # before 6.1; the question is about the wait, not about the ring
    with ring:
        deadline = time.monotonic() + _PATIENCE_S
        while True:  # a signal ends a wait early, a busy machine late
            ring.push(lib.IOX_PROBE_OP_NOP)
            # Submitted by an enter of its own: one that submits and waits tells how many it has
            # submitted, and keeps quiet about a wait that it refused (6.1 does).
            ring.enter()
            result = ring.enter(wait=8, timeout_ms=_FULL_WAIT_MS, min_wait_us=_MIN_WAIT_US)
            elapsed_us = ring.last_us
            ready = len(ring.reap())
            early = _MIN_WAIT_US <= elapsed_us < _FULL_WAIT_MS * 1000 // 2
            if early or result != 0 or time.monotonic() >= deadline:
                break
        evidence: dict[str, object] = {
            "elapsed_us": elapsed_us,
            "min_wait_us": _MIN_WAIT_US,
            "timeout_us": _FULL_WAIT_MS * 1000,
            "result": result,
            "waited_for": 8,
            "ready": ready,
            "defer_taskrun": refusal == 0,
        }
        if -result in REFUSALS:
            return refused(result, "a minimum wait", **evidence)
        seen = result == 0 and ready == 1 and early
        # A kernel before 6.12 refuses (EINVAL): the field was padding that had to be zero.
        return verdict(seen, evidence, f"the wait took {elapsed_us} us, not the minimum")


def multishot_timeout() -> Outcome:
    """One timeout of 10 ms fires at least twice with F_MORE."""
    with RawRing() as ring:
        ring.push(
            lib.IOX_PROBE_OP_TIMEOUT,
            addr=ring.keep_timespec(0.010),
            len=1,
            op_flags=lib.IOX_TIMEOUT_MULTISHOT,
        )
        start = time.monotonic_ns()
        found = ring.collect(lambda cqes: len(cqes) >= 2 or any(not c.more for c in cqes))
        elapsed_us = (time.monotonic_ns() - start) // 1000
        if refusal := refusal_of(found, "IORING_TIMEOUT_MULTISHOT"):
            return refusal
        evidence: dict[str, object] = {
            "requests": 1,
            "completions": described(found),
            "period_us": 10_000,
            "elapsed_us": elapsed_us,
        }
        fired = [c for c in found if c.res == -errno.ETIME and c.more]
        seen = len(fired) >= 2 and elapsed_us >= 20_000
        return verdict(seen, evidence, "the timeout did not fire twice with F_MORE")


def _message(pass_flags: bool) -> Outcome:
    # Flags from bit 16 on only: 7.3 refuses to pass some below, which have a meaning of their own.
    res, user_data, flags = 1234, 0x0123456789ABCDEF, 0x00BE0000
    with RawRing() as sender, RawRing() as receiver:
        extra = (
            {"op_flags": int(lib.IOX_PROBE_MSG_RING_FLAGS_PASS), "file_index": flags}
            if pass_flags
            else {}
        )
        sender.push(
            lib.IOX_PROBE_OP_MSG_RING, fd=receiver.fd, len=res, off=user_data, addr=0, **extra
        )
        told = sender.collect(1)
        what = "IORING_MSG_RING_FLAGS_PASS" if pass_flags else "IORING_OP_MSG_RING"
        if refusal := refusal_of(told, what):
            return refusal
        came = receiver.collect(1)
        evidence: dict[str, object] = {
            "sender": described(told),
            "receiver_res": [c.res for c in came],
            "receiver_user_data": [f"{c.user_data:#x}" for c in came],
            "receiver_flags": [f"{c.flags:#x}" for c in came],
        }
        seen = came == [Completion(user_data, res, flags if pass_flags else 0)]
        return verdict(seen, evidence, "the message did not arrive as it was sent")


def msg_ring() -> Outcome:
    """A completion with result and user data of the sender's choice arrives in another ring."""
    return _message(pass_flags=False)


def msg_ring_cqe_flags() -> Outcome:
    """The same with completion flags."""
    return _message(pass_flags=True)
