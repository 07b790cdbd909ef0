# SPDX-License-Identifier: MIT
"""AF_UNIX: the end of a stream, and control messages that nobody asked for."""

from __future__ import annotations

import pytest

from ioxide._errata import unix
from ioxide._errata.present import needed_by

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs(*needed_by(unix.end_of_a_stream_right_behind_a_message))
def test_end_of_a_stream_right_behind_a_message() -> None:
    """IOX-ERR-021: a multishot receive on AF_UNIX tells of the end of the stream."""
    unix.end_of_a_stream_right_behind_a_message()


@pytest.mark.needs(*needed_by(unix.end_of_a_tcp_stream_right_behind_a_message))
def test_end_of_a_tcp_stream_right_behind_a_message() -> None:
    """The control of IOX-ERR-021: over TCP the same receive tells of the end."""
    unix.end_of_a_tcp_stream_right_behind_a_message()


def test_control_message_that_nobody_asked_for() -> None:
    """IOX-ERR-022: a message without control data arrives without any."""
    unix.control_message_that_nobody_asked_for()
