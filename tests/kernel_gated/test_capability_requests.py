# SPDX-License-Identifier: MIT
"""SEND_ZC (6.0), MULTISHOT_TIMEOUT (6.4), MSG_RING (5.18) and its completion flags (6.3)."""

from __future__ import annotations

import errno
import socket

import pytest

from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs("SEND_ZC")
def test_each_zero_copy_send_has_a_result_and_a_notification() -> None:
    """Three sends: the results come in order, each followed by its notification without F_MORE."""
    data = pattern(8192)
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        got = b""
        found: list[Completion] = []
        for number in range(3):
            ring.push(
                lib.IOX_PROBE_OP_SEND_ZC,
                fd=near.fileno(),
                addr=ring.keep(data),
                len=len(data),
                op_flags=socket.MSG_WAITALL,
                user_data=number,
            )
            found += ring.collect(1)
            while len(got) < (number + 1) * len(data):
                got += far.recv(65536)
        found += ring.collect(6 - len(found)) if len(found) < 6 else []
        results = [c for c in found if not c.notif]
        assert [(n, len(data), True) for n in range(3)] == [
            (c.user_data, c.res, c.more) for c in results
        ]
        notifications = [c for c in found if c.notif]
        assert [0, 1, 2] == sorted(c.user_data for c in notifications)
        assert not any(c.more for c in notifications)
        assert data * 3 == got


@pytest.mark.needs("MULTISHOT_TIMEOUT")
def test_multishot_timeout_of_three_shots_ends_by_itself() -> None:
    """With a count of three, two firings have F_MORE, the third has not, and there is no fourth."""
    with RawRing(flags=REACTOR_FLAGS) as ring:
        ring.push(
            lib.IOX_PROBE_OP_TIMEOUT,
            addr=ring.keep_timespec(0.02),
            len=1,
            off=3,
            op_flags=lib.IOX_TIMEOUT_MULTISHOT,
        )
        found = ring.collect(lambda cqes: any(not c.more for c in cqes))
        late = ring.collect(1, timeout_ms=100)
    assert [True, True, False] == [c.more for c in found]
    assert {-errno.ETIME} == {c.res for c in found}
    assert late == []


@pytest.mark.needs("MSG_RING")
def test_message_wakes_a_ring_that_defers_its_work() -> None:
    """Messages from two rings arrive in a reactor's kind of ring, result and user data as sent."""
    with RawRing(flags=REACTOR_FLAGS) as receiver, RawRing() as one, RawRing() as other:
        for number, sender in enumerate((one, other)):
            sender.push(lib.IOX_PROBE_OP_MSG_RING, fd=receiver.fd, len=70 + number, off=number)
            assert [0] == [c.res for c in sender.collect(1)]
        came = receiver.collect(2)
    assert [(0, 70, 0), (1, 71, 0)] == sorted(came)


@pytest.mark.needs("MSG_RING_CQE_FLAGS")
def test_message_carries_completion_flags() -> None:
    """With FLAGS_PASS the receiver's completion has the flags that the sender chose."""
    flags = 0xCAFE0000
    with RawRing(flags=REACTOR_FLAGS) as receiver, RawRing() as sender:
        sender.push(
            lib.IOX_PROBE_OP_MSG_RING,
            fd=receiver.fd,
            len=1,
            off=2,
            op_flags=lib.IOX_PROBE_MSG_RING_FLAGS_PASS,
            file_index=flags,
        )
        assert [0] == [c.res for c in sender.collect(1)]
        assert [Completion(2, 1, flags)] == receiver.collect(1)
