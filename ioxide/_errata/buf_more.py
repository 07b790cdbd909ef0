# SPDX-License-Identifier: MIT
"""BUF_MORE is missing although the buffer goes on: who trusts it returns the buffer early.

With incremental buffers (IOU_PBUF_RING_INC, 6.12) a completion without IORING_CQE_F_BUF_MORE says
that the kernel is done with the buffer it names.  Each reproducer shows both halves of the
contradiction: the flag is missing, and the next bytes are put into that very buffer.
"""

from __future__ import annotations

import os

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import described, read, waiting
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

SIZE = 4096


@reproducer("IOX-ERR-001", needs=("INC_BUNDLE",))
def bundle_that_ends_inside_a_buffer() -> None:
    """IOX-ERR-001: a bundle over two buffers that fills the second in part keeps BUF_MORE.

    Found by this project on 6.18.15, see docs/errata.md.
    """
    first, second = pattern(6000), pattern(100)
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, flags=lib.IOX_PBUF_RING_INC) as buffers,
    ):
        near.sendall(first)
        waiting(far, len(first))  # so that one receive can take all of it
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECVSEND_BUNDLE)
        found = ring.collect(1)
        assert [(6000, 0)] == [(c.res, c.buffer_id) for c in found], described(found)
        assert first == buffers.read(0, 6000)

        near.sendall(second)
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECVSEND_BUNDLE)
        found += ring.collect(1)
        assert [100] == [c.res for c in found[1:]], described(found)
        appended = second == buffers.read(0, 100, offset=6000)
        if not found[0].buf_more:
            assert (1, True) == (found[1].buffer_id, appended), (
                f"buffer 1 was neither kept nor left: {described(found)}"
            )
            raise ErratumPresent(
                "IOX-ERR-001",
                f"{described(found)}: buffer 1 was said to be done and then appended to",
            )
        assert (1, True) == (found[1].buffer_id, appended), described(found)


@reproducer("IOX-ERR-002", needs=("INC",))
def read_from_a_file() -> None:
    """IOX-ERR-002: a read from a file that cannot be polled keeps BUF_MORE in a part-filled buffer.

    https://github.com/axboe/liburing/issues/1553, its second example.
    """
    whole = pattern(2000)
    fd = os.memfd_create("erratum", os.MFD_CLOEXEC)
    try:
        os.write(fd, whole)
        with (
            RawRing(flags=REACTOR_FLAGS) as ring,
            Provided(ring, flags=lib.IOX_PBUF_RING_INC) as buffers,
        ):
            found = [
                read(ring, fd, group=buffers.group, length=1000, offset=at) for at in (0, 1000)
            ]
            # The control: both reads went into buffer 0, so it was not done after the first.
            assert [(1000, 0)] * 2 == [(c.res, c.buffer_id) for c in found], described(found)
            assert whole == buffers.read(0, 2000)
            if not found[0].buf_more:
                raise ErratumPresent(
                    "IOX-ERR-002",
                    f"{described(found)}: buffer 0 was said to be done and then appended to",
                )
    finally:
        os.close(fd)


@reproducer("IOX-ERR-003", needs=("INC",))
def read_at_the_end_of_a_pipe() -> None:
    """IOX-ERR-003: a read of nothing at the end of a stream names no buffer, or keeps BUF_MORE.

    https://github.com/axboe/liburing/issues/1553, its first example.
    """
    first, second = pattern(100), pattern(60)
    ends = [*os.pipe(), *os.pipe()]
    try:
        with (
            RawRing(flags=REACTOR_FLAGS) as ring,
            Provided(ring, flags=lib.IOX_PBUF_RING_INC) as buffers,
        ):
            os.write(ends[1], first)
            found = [read(ring, ends[0], group=buffers.group)]
            os.close(ends[1])
            ends[1] = -1
            found.append(read(ring, ends[0], group=buffers.group))
            os.write(ends[3], second)
            found.append(read(ring, ends[2], group=buffers.group))
            # The control: the end came, and what came after it was appended to the same buffer.
            assert [100, 0, 60] == [c.res for c in found], described(found)
            assert (0, 0) == (found[0].buffer_id, found[2].buffer_id), described(found)
            assert first + second == buffers.read(0, 160)
            if found[1].buffer_id == 0 and not found[1].buf_more:
                raise ErratumPresent(
                    "IOX-ERR-003",
                    f"{described(found)}: buffer 0 was said to be done at the end of one stream, "
                    "and bytes of another were appended to it",
                )
    finally:
        for fd in ends:
            if fd >= 0:
                os.close(fd)
