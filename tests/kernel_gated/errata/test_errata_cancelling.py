# SPDX-License-Identifier: MIT
"""A request that is cancelled by its descriptor and its user data together (6.6)."""

from __future__ import annotations

import pytest

from ioxide._errata import cancelling

pytestmark = pytest.mark.kernel_gated


def test_cancel_by_descriptor_and_user_data() -> None:
    """IOX-ERR-018: a cancel by descriptor and user data finds the request that has both."""
    cancelling.cancel_by_descriptor_and_user_data()


def test_cancel_by_user_data() -> None:
    """The control of IOX-ERR-018: by its user data alone the same request is found."""
    cancelling.cancel_by_user_data()
