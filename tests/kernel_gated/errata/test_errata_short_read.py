# SPDX-License-Identifier: MIT
"""A file's end and incremental buffers (IOU_PBUF_RING_INC, 6.12)."""

from __future__ import annotations

import pytest

from ioxide._errata import short_read
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(short_read.short_read_takes_what_it_read))
def test_short_read_takes_what_it_read() -> None:
    """IOX-ERR-010: a read cut short by the file's end uses as much of the buffer as it filled."""
    short_read.short_read_takes_what_it_read()
