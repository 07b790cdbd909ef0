# SPDX-License-Identifier: MIT
"""Bundles (IORING_RECVSEND_BUNDLE, 6.10) that spoil a buffer, or put bytes out of order."""

from __future__ import annotations

import pytest

from ioxide._errata import bundle
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(bundle.bundle_that_finds_no_data))
def test_bundle_that_finds_no_data() -> None:
    """IOX-ERR-004: a bundle asked for 100 bytes that ends with EAGAIN leaves its buffer as it
    was."""
    bundle.bundle_that_finds_no_data()


@pytest.mark.needs(*needed_by(bundle.buffer_is_whole_where_no_bundle_was))
def test_buffer_is_whole_where_no_bundle_was() -> None:
    """The control of IOX-ERR-004: without the flag the same two receives leave the entry alone."""
    bundle.buffer_is_whole_where_no_bundle_was()


@pytest.mark.needs(*needed_by(bundle.bundle_of_a_given_length))
def test_bundle_of_a_given_length() -> None:
    """IOX-ERR-012: a bundle asked for 100 bytes takes no more of what waits."""
    bundle.bundle_of_a_given_length()


@pytest.mark.needs(*needed_by(bundle.receive_of_a_given_length))
def test_receive_of_a_given_length() -> None:
    """The control of IOX-ERR-012: without the flag a receive keeps to the length it was given."""
    bundle.receive_of_a_given_length()


@pytest.mark.needs(*needed_by(bundle.short_receive_with_more_waiting))
def test_short_receive_with_more_waiting() -> None:
    """IOX-ERR-005: a receive that ends short while more waits does not leave a gap in the
    bundle."""
    bundle.short_receive_with_more_waiting()


@pytest.mark.needs(*needed_by(bundle.urgent_mark_ends_a_receive_short))
def test_urgent_mark_ends_a_receive_short() -> None:
    """The control of IOX-ERR-005: recv(2) itself stops at the mark, although more is there."""
    bundle.urgent_mark_ends_a_receive_short()


@pytest.mark.needs(*needed_by(bundle.bundles_in_incremental_buffers))
def test_bundles_in_incremental_buffers() -> None:
    """IOX-ERR-006: bundles in incremental buffers stand one behind the other, in order."""
    bundle.bundles_in_incremental_buffers()
