# SPDX-License-Identifier: MIT
"""BUNDLE: one completion for several provided buffers, IORING_RECVSEND_BUNDLE (6.10)."""

from __future__ import annotations

import pytest

from ioxide._errata.waiting import described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair, total

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("BUNDLE")]

GROUP, SIZE, ENTRIES = 5, 512, 8


def test_bundle_goes_round_the_ring_of_buffers() -> None:
    """Messages wider than a buffer come as bundles in ring order, also past the ring's end.

    The receive is a multishot: 6.13 gives a request's first receive one buffer only, because it
    does not know yet how many bytes wait (io_recv_buf_select(), io_uring/net.c), and bundles the
    next.
    """
    messages = [pattern(5 * SIZE, seed=i) for i in range(5)]
    widest = 0
    found: list[Completion] = []
    armed = False
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=GROUP, entries=ENTRIES, size=SIZE)
        next_id = 0
        for message in messages:
            near.sendall(message)
            waiting(far, len(message))
            got = b""
            while len(got) < len(message):
                if not armed:
                    flags = lib.IOX_RECV_MULTISHOT | lib.IOX_RECVSEND_BUNDLE
                    ring.recv(far.fileno(), group=GROUP, ioprio=flags)
                new = ring.collect(1)
                found += new
                assert new, f"{len(got)} of {len(message)} bytes came: {described(found)}"
                for cqe in new:
                    assert cqe.res > 0, described(found)
                    assert next_id == cqe.buffer_id, described(found)
                    armed = cqe.more
                    got += buffers.span(next_id, cqe.res)
                    used = -(-cqe.res // SIZE)
                    widest = max(widest, used)
                    for bid in range(next_id, next_id + used):
                        buffers.give(bid % ENTRIES)
                    next_id = (next_id + used) % ENTRIES
            assert message == got
    assert widest > 1, f"no completion ever spanned two buffers: {described(found)}"


def test_without_the_flag_each_buffer_has_its_completion() -> None:
    """The control: the same bytes without the flag never put more than a buffer in a completion."""
    message = pattern(5 * SIZE)
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        ring.provide(group=GROUP, entries=ENTRIES, size=SIZE)
        near.sendall(message)
        ring.recv(far.fileno(), group=GROUP, ioprio=lib.IOX_RECV_MULTISHOT)
        found = ring.collect(lambda cqes: total(cqes) >= len(message))
        assert len(message) == total(found)
        assert SIZE >= max(c.res for c in found)
        assert len(found) >= 5
