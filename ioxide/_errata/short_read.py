# SPDX-License-Identifier: MIT
"""A file's end and incremental buffers (IOU_PBUF_RING_INC, 6.12)."""

from __future__ import annotations

import os

from ioxide._errata.connections import REACTOR_FLAGS, pattern
from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import described, read
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib


@reproducer("IOX-ERR-010", needs=("INC",))
def short_read_takes_what_it_read() -> None:
    """IOX-ERR-010: a read cut short by the file's end uses as much of the buffer as it filled.

    https://github.com/axboe/liburing/issues/1555, its first bug.
    """
    content = pattern(12)
    fd = os.memfd_create("erratum", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        with (
            RawRing(flags=REACTOR_FLAGS) as ring,
            Provided(ring, size=64, flags=lib.IOX_PBUF_RING_INC) as buffers,
        ):
            found = [
                read(ring, fd, group=buffers.group, length=16, offset=0),
                read(ring, fd, group=buffers.group, length=16, offset=0),
            ]
            # The control: both reads ended short, in buffer 0.
            assert [(12, 0)] * 2 == [(c.res, c.buffer_id) for c in found], described(found)
            assert content == buffers.read(0, 12)
            if buffers.read(0, 12, offset=16) == content:
                raise ErratumPresent(
                    "IOX-ERR-010",
                    f"{described(found)}: the second begins at 16, the first had filled 12",
                )
            assert content == buffers.read(0, 12, offset=12)
    finally:
        os.close(fd)
