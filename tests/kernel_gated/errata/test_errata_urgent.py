# SPDX-License-Identifier: MIT
"""An urgent mark, and a signal that is pending while a receive meets it."""

from __future__ import annotations

import pytest

from ioxide._errata import urgent
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(urgent.receive_at_a_mark_with_a_signal_pending))
def test_receive_at_a_mark_with_a_signal_pending() -> None:
    """IOX-ERR-016: a receive at an urgent mark takes the bytes that wait, whatever is pending."""
    urgent.receive_at_a_mark_with_a_signal_pending()


@pytest.mark.needs(*needed_by(urgent.receive_at_a_mark))
def test_receive_at_a_mark() -> None:
    """The control of IOX-ERR-016: with nothing pending the multishot receive has the bytes."""
    urgent.receive_at_a_mark()


@pytest.mark.needs(*needed_by(urgent.single_receive_at_a_mark_with_a_signal_pending))
def test_single_receive_at_a_mark_with_a_signal_pending() -> None:
    """The control of IOX-ERR-016, and the way out: a single-shot receive tries again."""
    urgent.single_receive_at_a_mark_with_a_signal_pending()
