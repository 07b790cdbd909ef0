# SPDX-License-Identifier: MIT
"""Polls: one that its own completions wake, and one that an update makes fire."""

from __future__ import annotations

import pytest

from ioxide._errata import polls

pytestmark = pytest.mark.kernel_gated


def test_last_completion_of_a_nested_poll() -> None:
    """IOX-ERR-019: after a completion with F_MORE a multishot poll is still there."""
    polls.last_completion_of_a_nested_poll()


def test_update_that_makes_a_poll_fire() -> None:
    """IOX-ERR-020: a poll that an update makes fire completes with what it found."""
    polls.update_that_makes_a_poll_fire()


def test_poll_that_fires_at_once() -> None:
    """The control of IOX-ERR-020: a poll that was asked for it from the start completes."""
    polls.poll_that_fires_at_once()
