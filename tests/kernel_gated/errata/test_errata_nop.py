# SPDX-License-Identifier: MIT
"""A NOP with a file (IORING_NOP_FILE, 6.13)."""

from __future__ import annotations

import pytest

from ioxide._errata import nop

pytestmark = pytest.mark.kernel_gated


def test_file_of_a_nop() -> None:
    """IOX-ERR-030: a NOP gives back the file that it was given."""
    nop.file_of_a_nop()


def test_file_of_a_plain_nop() -> None:
    """The control of IOX-ERR-030: without the flag the file is given back."""
    nop.file_of_a_plain_nop()
