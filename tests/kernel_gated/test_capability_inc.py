# SPDX-License-Identifier: MIT
"""INC: incremental provided buffers, IOU_PBUF_RING_INC (6.12)."""

from __future__ import annotations

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair, total

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("INC")]

GROUP = 3


def test_receives_fill_one_buffer_after_the_other() -> None:
    """Buffer 0 is appended to until it is full (BUF_MORE clear), only then buffer 1 begins."""
    first, second = pattern(1000), pattern(6000)
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        ring.provide(group=GROUP, entries=4, size=4096, flags=lib.IOX_PBUF_RING_INC)
        ring.recv(far.fileno(), group=GROUP, ioprio=lib.IOX_RECV_MULTISHOT)
        near.sendall(first)
        found = ring.collect(1)
        assert [(1000, 0, True)] == [(c.res, c.buffer_id, c.buf_more) for c in found]

        near.sendall(second)
        found += ring.collect(lambda cqes: total(cqes) >= len(second))

    # The second message may come in several pieces; each buffer is used in full before the next.
    whole, filled = first + second, 0
    for cqe in found:
        assert filled // 4096 == cqe.buffer_id
        assert filled % 4096 + cqe.res <= 4096
        filled += cqe.res
        assert cqe.buf_more is (filled % 4096 != 0)
    assert filled == len(whole)


def test_bytes_stand_where_they_were_appended() -> None:
    """The bytes of ten receives stand in the buffer one behind the other."""
    pieces = [pattern(100 + i, seed=i) for i in range(10)]
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=GROUP, entries=1, size=4096, flags=lib.IOX_PBUF_RING_INC)
        offset = 0
        for piece in pieces:
            near.sendall(piece)
            ring.recv(far.fileno(), group=GROUP)  # a request of its own each time
            (cqe,) = ring.collect(1)
            assert (len(piece), 0, True) == (cqe.res, cqe.buffer_id, cqe.buf_more)
            assert piece == buffers.read(0, len(piece), offset=offset)
            offset += len(piece)


def test_plain_buffers_are_not_appended_to() -> None:
    """The control: without the flag each receive takes a buffer of its own, never BUF_MORE."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        ring.provide(group=GROUP, entries=4, size=4096)
        ring.recv(far.fileno(), group=GROUP, ioprio=lib.IOX_RECV_MULTISHOT)
        found = []
        for _ in range(2):
            near.sendall(b"twice")
            found += ring.collect(1)
        assert [(5, 0, False), (5, 1, False)] == [(c.res, c.buffer_id, c.buf_more) for c in found]
