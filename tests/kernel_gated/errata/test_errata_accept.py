# SPDX-License-Identifier: MIT
"""A multishot accept (5.19) and a completion queue that is full."""

from __future__ import annotations

import pytest

from ioxide._errata import accept
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(accept.accept_submitted_to_a_full_queue))
def test_accept_submitted_to_a_full_queue() -> None:
    """IOX-ERR-014: an accept that takes a connection says which descriptor it has."""
    accept.accept_submitted_to_a_full_queue()


@pytest.mark.needs(*needed_by(accept.accept_that_polls_first))
def test_accept_that_polls_first() -> None:
    """The control of IOX-ERR-014, and the way out: run from its poll an accept loses nothing."""
    accept.accept_that_polls_first()
