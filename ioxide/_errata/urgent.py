# SPDX-License-Identifier: MIT
"""An urgent mark, and a signal that is pending while a receive meets it.

The byte at the mark is in line here (SO_OOBINLINE), so that every byte is counted. Where it is not,
a receive does the same.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import OP_WRITE, described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

BEFORE, AFTER = pattern(1500), pattern(700)
NOTICE_MS = 500.0
WRITE, RECEIVE = 1, 2


def _at_the_mark(*, signal: bool, multishot: bool) -> list[Completion]:
    """The completions of a receive at an urgent mark behind which `AFTER` waits.

    With `signal` a task work of another ring of this thread becomes pending in the very call that
    submits the receive: a write wakes that ring's poll, which notifies the thread (TWA_SIGNAL).
    """
    with ExitStack() as stack:
        near, far = stack.enter_context(tcp_pair())
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        other = stack.enter_context(RawRing())
        ring = stack.enter_context(RawRing(flags=REACTOR_FLAGS))
        buffers = stack.enter_context(Provided(ring))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        near.sendall(BEFORE)
        near.send(AFTER[:1], socket.MSG_OOB)
        near.sendall(AFTER[1:])
        waiting(far, len(BEFORE) + len(AFTER))
        # The control: a receive stops at the mark, so the next one begins there.
        assert far.recv(4096) == BEFORE
        other.push(lib.IOX_PROBE_OP_POLL_ADD, fd=reader, op_flags=select.POLLIN)
        assert other.enter() == 1
        if signal:
            ring.push(OP_WRITE, fd=writer, addr=ring.keep(b"x"), len=1, user_data=WRITE)
        ring.recv(
            far.fileno(),
            group=buffers.group,
            ioprio=lib.IOX_RECV_MULTISHOT if multishot else 0,
            user_data=RECEIVE,
        )
        found = ring.collect(1 + signal, timeout_ms=NOTICE_MS)
        if signal:
            assert (WRITE, 1) in [(c.user_data, c.res) for c in found], described(found)
        # The control: the bytes wait all the time; recv(2) has them at once.
        got = [c for c in found if c.user_data == RECEIVE]
        if not got:
            assert far.recv(4096, socket.MSG_DONTWAIT) == AFTER
        return got


@reproducer("IOX-ERR-016", needs=("MULTISHOT_RECV",))
def receive_at_a_mark_with_a_signal_pending() -> None:
    """IOX-ERR-016: a receive at an urgent mark takes the bytes that wait, whatever is pending.

    tcp_recvmsg_locked() gives EAGAIN there as soon as signal_pending(current) is true, and that a
    task work is to be run counts as a signal.  The poll of a multishot receive then waits for an
    event that has been.
    """
    found = _at_the_mark(signal=True, multishot=True)
    if not found:
        raise ErratumPresent(
            "IOX-ERR-016",
            f"{len(AFTER)} bytes waited behind the mark, a multishot receive had none of them "
            f"within {NOTICE_MS:.0f} ms",
        )
    assert [len(AFTER)] == [c.res for c in found], described(found)


@control(needs=("MULTISHOT_RECV",))
def receive_at_a_mark() -> None:
    """The control of IOX-ERR-016: with nothing pending the multishot receive has the bytes."""
    found = _at_the_mark(signal=False, multishot=True)
    assert [len(AFTER)] == [c.res for c in found], described(found)


@control(needs=("PBUF_RING",))
def single_receive_at_a_mark_with_a_signal_pending() -> None:
    """The control of IOX-ERR-016, and the way out: a single-shot receive tries again."""
    found = _at_the_mark(signal=True, multishot=False)
    assert [len(AFTER)] == [c.res for c in found], described(found)
