# SPDX-License-Identifier: MIT
"""recvmsg and incremental buffers (IOU_PBUF_RING_INC, 6.12): what a buffer's tail is good for."""

from __future__ import annotations

import pytest

from ioxide._errata import recvmsg
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(recvmsg.message_at_the_tail_of_a_buffer))
def test_message_at_the_tail_of_a_buffer() -> None:
    """IOX-ERR-009: a buffer whose rest is too small for a message's header is left for the next."""
    recvmsg.message_at_the_tail_of_a_buffer()


@pytest.mark.needs(*needed_by(recvmsg.truncated_message_and_the_buffer_after_it))
def test_truncated_message_and_the_buffer_after_it() -> None:
    """IOX-ERR-011: a datagram cut off at the end of a buffer takes nothing of the next one."""
    recvmsg.truncated_message_and_the_buffer_after_it()
