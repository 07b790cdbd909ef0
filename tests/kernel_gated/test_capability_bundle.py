# SPDX-License-Identifier: MIT
"""BUNDLE: one completion for several provided buffers, IORING_RECVSEND_BUNDLE (6.10)."""

from __future__ import annotations

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair, total

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("BUNDLE")]

GROUP, SIZE, ENTRIES = 5, 512, 8


def test_bundle_goes_round_the_ring_of_buffers() -> None:
    """Messages wider than a buffer come as bundles in ring order, also past the ring's end."""
    messages = [pattern(5 * SIZE, seed=i) for i in range(5)]
    widest = 0
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=GROUP, entries=ENTRIES, size=SIZE)
        next_id = 0
        for message in messages:
            near.sendall(message)  # before the receive is armed, so that all of it waits
            got = b""
            while len(got) < len(message):
                ring.recv(far.fileno(), group=GROUP, ioprio=lib.IOX_RECVSEND_BUNDLE)
                (cqe,) = ring.collect(1)
                assert cqe.res > 0, cqe.describe()
                assert next_id == cqe.buffer_id
                got += buffers.span(next_id, cqe.res)
                used = -(-cqe.res // SIZE)
                widest = max(widest, used)
                for bid in range(next_id, next_id + used):
                    buffers.give(bid % ENTRIES)
                next_id = (next_id + used) % ENTRIES
            assert message == got
    assert widest > 1, "no completion ever spanned two buffers, so nothing was shown"


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
