# SPDX-License-Identifier: MIT
"""Absolute times in a time namespace (CLONE_NEWTIME, 5.6)."""

from __future__ import annotations

import pytest

from ioxide._errata import timens

pytestmark = pytest.mark.kernel_gated


def test_absolute_timeout_in_a_time_namespace() -> None:
    """IOX-ERR-024: an absolute timeout is one of the clock that the program sees."""
    timens.absolute_timeout_in_a_time_namespace()
