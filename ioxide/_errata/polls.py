# SPDX-License-Identifier: MIT
"""Polls: one that its own completions wake, and one that an update makes fire."""

from __future__ import annotations

import errno
import os
import select
import struct

from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.waiting import described
from ioxide._probe.rawring import WAIT_MS, RawRing
from ioxide._ring import ffi, lib

OP_POLL_REMOVE = 7  # IORING_OP_POLL_REMOVE, which updates, too (5.13)
POLL_ADD_MULTI, POLL_UPDATE_EVENTS = 1 << 0, 1 << 1  # IORING_POLL_*, 5.13
REGISTER_EVENTFD = 4
POLL, UPDATE, CANCEL = 1, 2, 3
ROUNDS = 4
LASTING: list[RawRing] = []
"""Rings that have lost a request. Such a ring never ends, and five minutes after its close the
kernel complains (io_ring_exit_work, 6.10.0), in whatever test runs then. So they are kept open."""


@reproducer("IOX-ERR-019")
def last_completion_of_a_nested_poll() -> None:
    """IOX-ERR-019: after a completion with F_MORE a multishot poll is still there.

    liburing's test/poll-mshot-wake.c and https://github.com/axboe/liburing/issues/1611: a poll of
    the very eventfd that the ring notifies is ended by the kernel, lest it wakes itself for ever.
    """
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        with RawRing() as ring:
            number = struct.pack("=i", eventfd)
            result = lib.iox_probe_register(ring.raw, REGISTER_EVENTFD, ffi.from_buffer(number), 1)
            assert result == 0, f"IORING_REGISTER_EVENTFD: {result}"
            ring.push(
                lib.IOX_PROBE_OP_POLL_ADD,
                fd=eventfd,
                len=POLL_ADD_MULTI,
                op_flags=select.POLLIN,
                user_data=POLL,
            )
            assert ring.enter() == 1
            found = []
            for _ in range(ROUNDS):
                os.eventfd_write(eventfd, 1)
                os.eventfd_read(eventfd)
                new = ring.collect(1, timeout_ms=1000)
                found += new
                if not new or not new[-1].more:
                    break
            # The control: the poll fired.
            assert found, "the poll never fired"
            assert all((POLL, True) == (c.user_data, c.res >= 0) for c in found), described(found)
            ring.push(lib.IOX_PROBE_OP_ASYNC_CANCEL, fd=-1, addr=POLL, op_flags=0, user_data=CANCEL)
            after = ring.collect(lambda all: any(c.user_data == CANCEL for c in all))
            assert after, "the cancel was not answered"
            answer = next(c for c in after if c.user_data == CANCEL)
            of_the_poll = [*found, *(c for c in after if c.user_data == POLL)]
            if answer.res == -errno.ENOENT and of_the_poll[-1].more:
                raise ErratumPresent(
                    "IOX-ERR-019",
                    f"{described(of_the_poll)}, and a cancel finds no poll: {answer.describe()}",
                )
            if found[-1].more and not new:
                raise ErratumPresent(
                    "IOX-ERR-019",
                    f"{described(found)}, and nothing came of the next event; the cancel of the "
                    f"poll: {answer.describe()}",
                )
    finally:
        os.close(eventfd)


@reproducer("IOX-ERR-020")
def update_that_makes_a_poll_fire() -> None:
    """IOX-ERR-020: a poll that an update makes fire completes with what it found.

    liburing's test/poll-update-trigger.c describes it: the update completed, the poll did not.
    """
    reader, writer = os.pipe()
    ring = RawRing()
    try:
        # The writing end of a pipe never becomes readable.
        ring.push(lib.IOX_PROBE_OP_POLL_ADD, fd=writer, op_flags=select.POLLIN, user_data=POLL)
        assert ring.enter() == 1
        ring.push(
            OP_POLL_REMOVE,
            fd=-1,
            addr=POLL,
            len=POLL_UPDATE_EVENTS,
            op_flags=select.POLLOUT,
            user_data=UPDATE,
        )
        found = {c.user_data: c for c in ring.collect(2, timeout_ms=WAIT_MS / 3)}
        # The control: the update was done.
        assert found[UPDATE].res == 0, found
        if POLL not in found:
            LASTING.append(ring)
            raise ErratumPresent(
                "IOX-ERR-020", f"the update: {found[UPDATE].describe()}; nothing of the poll"
            )
        if found[POLL].res != select.POLLOUT:
            raise ErratumPresent(
                "IOX-ERR-020",
                f"the poll's result is {found[POLL].res}, where {select.POLLOUT} was due",
            )
    finally:
        if ring not in LASTING:
            ring.close()
        os.close(reader)
        os.close(writer)


@control()
def poll_that_fires_at_once() -> None:
    """The control of IOX-ERR-020: a poll that was asked for it from the start completes."""
    reader, writer = os.pipe()
    try:
        with RawRing() as ring:
            ring.push(lib.IOX_PROBE_OP_POLL_ADD, fd=writer, op_flags=select.POLLOUT)
            assert [select.POLLOUT] == [c.res for c in ring.collect(1)]
    finally:
        os.close(reader)
        os.close(writer)
