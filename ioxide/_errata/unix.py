# SPDX-License-Identifier: MIT
"""AF_UNIX: the end of a stream, and control messages that nobody asked for."""

from __future__ import annotations

import socket
import struct
from contextlib import AbstractContextManager, ExitStack

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import OP_RECVMSG, described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

Pair = tuple[socket.socket, socket.socket]
MESSAGE = pattern(123)
NOTICE_MS = 1_000.0
SCM_INQ = 84  # SCM_INQ, 6.17
CONTROL = 64


def _unix(stack: ExitStack) -> Pair:
    near, far = socket.socketpair()
    return stack.enter_context(near), stack.enter_context(far)


def _to_the_end(pair: Pair) -> list[Completion]:
    """What a multishot receive says of a message and the end of the stream that came together,
    after it had begun to wait and before it was run."""
    near, far = pair
    with RawRing(flags=REACTOR_FLAGS) as ring, Provided(ring) as buffers:
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECV_MULTISHOT)
        assert ring.enter() == 1
        near.sendall(MESSAGE)
        near.shutdown(socket.SHUT_WR)
        waiting(far, len(MESSAGE))
        found = ring.collect(2, timeout_ms=NOTICE_MS)
        # The control: the message was received; recv(2) sees the end.
        assert found, "nothing came of the message"
        assert found[0].res == len(MESSAGE), described(found)
        assert far.recv(1, socket.MSG_DONTWAIT) == b""
        return found


@reproducer("IOX-ERR-021", needs=("MULTISHOT_RECV",))
def end_of_a_stream_right_behind_a_message() -> None:
    """IOX-ERR-021: a multishot receive on AF_UNIX tells of the end of the stream.

    https://github.com/axboe/liburing/issues/1549, CVE-2026-23473: where message and end come before
    the receive is run again, it takes the message, sees that no more bytes wait, and waits for an
    event that has been.
    """
    with ExitStack() as stack:
        found = _to_the_end(_unix(stack))
    if len(found) == 1 and found[0].more:
        raise ErratumPresent(
            "IOX-ERR-021", f"{described(found)}; of the end nothing within {NOTICE_MS:.0f} ms"
        )
    assert [len(MESSAGE), 0] == [c.res for c in found], described(found)


@control(needs=("MULTISHOT_RECV",))
def end_of_a_tcp_stream_right_behind_a_message() -> None:
    """The control of IOX-ERR-021: over TCP the same receive tells of the end."""
    pair: AbstractContextManager[Pair] = tcp_pair()
    with pair as both:
        found = _to_the_end(both)
    assert [len(MESSAGE), 0] == [c.res for c in found], described(found)


@reproducer("IOX-ERR-022")
def control_message_that_nobody_asked_for() -> None:
    """IOX-ERR-022: a message without control data arrives without any.

    https://github.com/axboe/liburing/issues/1509: the kernel's own question of how much more waits
    (`msg_get_inq`) was answered to the program, as SCM_INQ.
    """
    with ExitStack() as stack:
        near, far = _unix(stack)
        ring = stack.enter_context(RawRing())
        near.sendall(MESSAGE)
        into, held = bytearray(len(MESSAGE)), bytearray(CONTROL)
        parts = struct.pack("=QQ", ring.keep(into), len(into))
        # struct msghdr: name, its length, iov, their number, control, its length, flags
        header = bytearray(
            struct.pack("=QI4xQQQQi4x", 0, 0, ring.keep(parts), 1, ring.keep(held), CONTROL, 0)
        )
        ring.push(OP_RECVMSG, fd=far.fileno(), addr=ring.keep(header), len=1)
        found = ring.collect(1)
        # The control: the message arrived; recvmsg(2) has no control data of the next one.
        assert [len(MESSAGE)] == [c.res for c in found], described(found)
        assert bytes(into) == MESSAGE
        near.sendall(MESSAGE)
        assert far.recvmsg(len(MESSAGE), CONTROL)[:2] == (MESSAGE, [])
        length = int(struct.unpack("=QI4xQQQQi4x", header)[5])
        if length:
            size, level, kind = struct.unpack_from("=Qii", held)
            raise ErratumPresent(
                "IOX-ERR-022",
                f"{length} bytes of control data: level {level}, type {kind}"
                f"{' (SCM_INQ)' if kind == SCM_INQ else ''}, {size} bytes",
            )
