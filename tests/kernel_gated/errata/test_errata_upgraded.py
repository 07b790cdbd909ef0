# SPDX-License-Identifier: MIT
"""A group of buffers that is given up and registered as a ring while a request has one of them."""

from __future__ import annotations

import pytest

from ioxide._errata import upgraded
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(upgraded.group_that_becomes_a_ring))
def test_group_that_becomes_a_ring() -> None:
    """IOX-ERR-032: a buffer that comes back to a group which is a ring by now harms nothing."""
    upgraded.group_that_becomes_a_ring()
