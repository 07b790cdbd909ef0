# SPDX-License-Identifier: MIT
"""A ring that is resized (IORING_REGISTER_RESIZE_RINGS, 6.13) with completions in its queue."""

from __future__ import annotations

import errno
import mmap
import struct

from ioxide._errata.connections import REACTOR_FLAGS
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

REGISTER_RESIZE_RINGS = 33
SETUP_CQSIZE, SETUP_CQE32 = 1 << 3, 1 << 11
OFF_CQ_RING = 0x8000000
COUNT = 6
# struct io_uring_params: sq_entries, cq_entries, flags, then words up to sq_off at 40 and cq_off at
# 80: head, tail, ring_mask, ring_entries, overflow, cqes
_PARAMS = 120


def _resized(flags: int) -> list[int] | None:
    """The user data of the completions in the queue of a ring that was resized while `COUNT` were
    in it, by where the kernel says they are; None if it does not resize."""
    with RawRing(entries=8, cq_entries=8, flags=REACTOR_FLAGS | flags) as ring:
        for number in range(1, COUNT + 1):
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=number)
        assert ring.enter() == COUNT
        # The control: they are there, before.
        assert ring.ready == COUNT, f"{ring.ready} completions"
        params = bytearray(_PARAMS)
        struct.pack_into("=III", params, 0, 8, 64, SETUP_CQSIZE)
        result = lib.iox_probe_register(ring.raw, REGISTER_RESIZE_RINGS, ffi.from_buffer(params), 1)
        if result == -errno.EINVAL:
            return None
        assert result == 0, f"IORING_REGISTER_RESIZE_RINGS: {result}"
        entries = int(struct.unpack_from("=I", params, 4)[0])
        head_at, tail_at, _, _, _, cqes_at = struct.unpack_from("=IIIIII", params, 80)
        size = 32 if flags & SETUP_CQE32 else 16
        with mmap.mmap(ring.fd, cqes_at + entries * size, offset=OFF_CQ_RING) as queue:
            head, tail = (struct.unpack_from("=I", queue, at)[0] for at in (head_at, tail_at))
            places = [cqes_at + n % entries * size for n in range(head, tail)]
            return [int(struct.unpack_from("=Q", queue, place)[0]) for place in places]


@reproducer("IOX-ERR-027", needs=("DEFER_TASKRUN",))
def completions_of_a_resized_ring() -> None:
    """IOX-ERR-027: a ring of large entries (CQE32) keeps its completions when it is resized.

    liburing's test/large-resize.c, e4590f35: entries were copied as if they were small.
    """
    found = _resized(SETUP_CQE32)
    wanted = list(range(1, COUNT + 1))
    if found is not None and found != wanted:
        raise ErratumPresent("IOX-ERR-027", f"of {wanted} there are {found}")


@control(needs=("DEFER_TASKRUN",))
def completions_of_a_resized_ring_of_small_entries() -> None:
    """The control of IOX-ERR-027: small entries are all there."""
    assert _resized(0) in (None, list(range(1, COUNT + 1)))
