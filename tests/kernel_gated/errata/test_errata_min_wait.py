# SPDX-License-Identifier: MIT
"""A minimum wait (IORING_FEAT_MIN_TIMEOUT, 6.12) that ends too late, or for nothing."""

from __future__ import annotations

import pytest

from ioxide._errata import min_wait
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(min_wait.late_completion_ends_the_wait))
def test_late_completion_ends_the_wait() -> None:
    """IOX-ERR-007: after the minimum the first completion ends the wait, on each kind of ring."""
    min_wait.late_completion_ends_the_wait()


@pytest.mark.needs(*needed_by(min_wait.wait_is_not_ended_by_nothing))
def test_wait_is_not_ended_by_nothing() -> None:
    """IOX-ERR-008: a request that posts no completion does not end the wait after the minimum."""
    min_wait.wait_is_not_ended_by_nothing()
