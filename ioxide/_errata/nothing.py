# SPDX-License-Identifier: MIT
"""A receive that was told not to wait, and finds nothing; plain and as a bundle (6.10)."""

from __future__ import annotations

import errno
import socket

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

MESSAGE = pattern(1000)


def _twice(flags: int) -> list[Completion]:
    """A receive that must not wait and finds nothing, and one that finds `MESSAGE`."""
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring) as buffers,
    ):
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            op_flags=socket.MSG_DONTWAIT,
            ioprio=flags,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
        )
        found = ring.collect(1)
        # The control: there was nothing, and the kernel says so.
        assert [-errno.EAGAIN] == [c.res for c in found], described(found)
        near.sendall(MESSAGE)
        waiting(far, len(MESSAGE))
        ring.recv(far.fileno(), group=buffers.group)
        found += ring.collect(1)
        assert [len(MESSAGE)] == [c.res for c in found[1:]], described(found)
        bid = found[1].buffer_id
        assert bid is not None
        assert MESSAGE == buffers.read(bid, len(MESSAGE))
        return found


@reproducer("IOX-ERR-013", needs=("BUNDLE",))
def bundle_that_finds_nothing() -> None:
    """IOX-ERR-013: a bundle that ends with EAGAIN leaves the first buffer to the next receive."""
    found = _twice(lib.IOX_RECVSEND_BUNDLE)
    if found[1].buffer_id == 1:
        raise ErratumPresent("IOX-ERR-013", f"{described(found)}: nothing was put into buffer 0")
    assert found[1].buffer_id == 0, described(found)


@reproducer("IOX-ERR-015", needs=("PBUF_RING",))
def receive_that_finds_nothing() -> None:
    """IOX-ERR-015: a receive that ends with EAGAIN names a buffer that it leaves in the ring.

    It is the control of IOX-ERR-013, too: a buffer that a plain receive uses up is named by it.
    """
    found = _twice(0)
    named, used = found[0].buffer_id, found[1].buffer_id
    if named is not None and named == used:
        raise ErratumPresent(
            "IOX-ERR-015",
            f"{described(found)}: who provides buffer {named} again has it in the ring twice",
        )
    assert used == (0 if named is None else named + 1), described(found)
