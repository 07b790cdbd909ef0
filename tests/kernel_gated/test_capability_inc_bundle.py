# SPDX-License-Identifier: MIT
"""INC_BUNDLE: a bundle over incremental buffers (IOU_PBUF_RING_INC and IORING_RECVSEND_BUNDLE)."""

from __future__ import annotations

import pytest

from ioxide._errata.provided import Provided
from ioxide._errata.waiting import described, waiting
from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs("INC_BUNDLE")
def test_one_completion_spans_two_incremental_buffers() -> None:
    """6000 bytes that wait come in one completion over buffers of 4096."""
    data = pattern(6000)
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, flags=lib.IOX_PBUF_RING_INC) as buffers,
    ):
        near.sendall(data)
        waiting(far, len(data))
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECVSEND_BUNDLE)
        found = ring.collect(1)
        assert [(len(data), 0)] == [(c.res, c.buffer_id) for c in found], described(found)
        assert data == buffers.read(0, len(data))
