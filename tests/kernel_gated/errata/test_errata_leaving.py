# SPDX-License-Identifier: MIT
"""A thread that ends after it had a ring whose requests were run by kernel workers."""

from __future__ import annotations

import pytest

from ioxide._errata import leaving

pytestmark = pytest.mark.kernel_gated


def test_thread_with_an_idle_worker() -> None:
    """IOX-ERR-029: a thread whose ring is closed ends at once, whatever worker it had."""
    leaving.thread_with_an_idle_worker()
