# SPDX-License-Identifier: MIT
"""A ring that is resized (IORING_REGISTER_RESIZE_RINGS, 6.13) with completions in its queue."""

from __future__ import annotations

import pytest

from ioxide._errata import resizing
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(resizing.completions_of_a_resized_ring))
def test_completions_of_a_resized_ring() -> None:
    """IOX-ERR-027: a ring of large entries (CQE32) keeps its completions when it is resized."""
    resizing.completions_of_a_resized_ring()


@pytest.mark.needs(*needed_by(resizing.completions_of_a_resized_ring_of_small_entries))
def test_completions_of_a_resized_ring_of_small_entries() -> None:
    """The control of IOX-ERR-027: small entries are all there."""
    resizing.completions_of_a_resized_ring_of_small_entries()
