# SPDX-License-Identifier: MIT
"""BUF_MORE is missing although the buffer goes on: a program that trusts it returns it early."""

from __future__ import annotations

import pytest

from ioxide._errata import buf_more
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(buf_more.bundle_that_ends_inside_a_buffer))
def test_bundle_that_ends_inside_a_buffer() -> None:
    """IOX-ERR-001: a bundle over two buffers that fills the second in part keeps BUF_MORE."""
    buf_more.bundle_that_ends_inside_a_buffer()


@pytest.mark.needs(*needed_by(buf_more.read_from_a_file))
def test_read_from_a_file() -> None:
    """IOX-ERR-002: a read from a file that cannot be polled keeps BUF_MORE in a part-filled
    buffer."""
    buf_more.read_from_a_file()


@pytest.mark.needs(*needed_by(buf_more.read_at_the_end_of_a_pipe))
def test_read_at_the_end_of_a_pipe() -> None:
    """IOX-ERR-003: a read of nothing at the end of a stream names no buffer, or keeps BUF_MORE."""
    buf_more.read_at_the_end_of_a_pipe()
