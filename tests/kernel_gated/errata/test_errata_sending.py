# SPDX-License-Identifier: MIT
"""Sends from memory that the kernel was given before: registered buffers, and provided ones."""

from __future__ import annotations

import pytest

from ioxide._errata import sending
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(sending.vector_of_another_buffer))
def test_vector_of_another_buffer() -> None:
    """IOX-ERR-025: a send of a vector that names a registered buffer sends of that buffer alone."""
    sending.vector_of_another_buffer()


@pytest.mark.needs(*needed_by(sending.message_of_a_registered_buffer))
def test_message_of_a_registered_buffer() -> None:
    """The control of IOX-ERR-025: without a vector the memory of the named buffer is sent."""
    sending.message_of_a_registered_buffer()


@pytest.mark.needs(*needed_by(sending.sends_in_the_order_of_their_buffers))
def test_sends_in_the_order_of_their_buffers() -> None:
    """IOX-ERR-026: sends from provided buffers send them in the order in which they were
    provided."""
    sending.sends_in_the_order_of_their_buffers()
