# SPDX-License-Identifier: MIT
"""What a ring that only waits looks like from outside."""

from __future__ import annotations

import pytest

from ioxide._errata import idle

pytestmark = pytest.mark.kernel_gated


def test_idle_rings_and_blocked_tasks() -> None:
    """IOX-ERR-017: a thread that waits in a ring for a peer does not count as waiting for a
    disk."""
    idle.idle_rings_and_blocked_tasks()
