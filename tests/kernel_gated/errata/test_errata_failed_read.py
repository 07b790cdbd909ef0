# SPDX-License-Identifier: MIT
"""A read into a provided buffer that fails."""

from __future__ import annotations

import pytest

from ioxide._errata import failed_read
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(failed_read.failed_read_and_its_buffer))
def test_failed_read_and_its_buffer() -> None:
    """IOX-ERR-023: a read that fails names no buffer that stays in the ring."""
    failed_read.failed_read_and_its_buffer()


@pytest.mark.needs(*needed_by(failed_read.failed_receive_and_its_buffer))
def test_failed_receive_and_its_buffer() -> None:
    """The control of IOX-ERR-023: a receive that fails names none, or one that it uses up."""
    failed_read.failed_receive_and_its_buffer()
