# SPDX-License-Identifier: MIT
"""A receive that was told not to wait, and finds nothing; plain and as a bundle (6.10)."""

from __future__ import annotations

import pytest

from ioxide._errata import nothing
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(nothing.bundle_that_finds_nothing))
def test_bundle_that_finds_nothing() -> None:
    """IOX-ERR-013: a bundle that ends with EAGAIN leaves the first buffer to the next receive."""
    nothing.bundle_that_finds_nothing()


@pytest.mark.needs(*needed_by(nothing.receive_that_finds_nothing))
def test_receive_that_finds_nothing() -> None:
    """IOX-ERR-015: a receive that ends with EAGAIN names a buffer that it leaves in the ring."""
    nothing.receive_that_finds_nothing()
