# SPDX-License-Identifier: MIT
"""An incremental ring (IOU_PBUF_RING_INC, 6.12) whose entry is overwritten by what is received."""

from __future__ import annotations

import pytest

from ioxide._errata import overwritten
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(overwritten.entry_that_is_overwritten))
def test_entry_that_is_overwritten() -> None:
    """IOX-ERR-031: a receive that overwrites its own entry ends."""
    overwritten.entry_that_is_overwritten()
