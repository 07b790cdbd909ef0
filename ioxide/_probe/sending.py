# SPDX-License-Identifier: MIT
"""Experiments on sending with zero copy, and on registered buffers of plain sends and receives."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from ioxide._probe.outcome import Outcome, described, payload, refusal_of, stream_pair, verdict
from ioxide._probe.rawring import Completion, RawRing, os_error
from ioxide._ring import ffi, lib


def loopback_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets.

    :raises OSError: ENETDOWN, there is no loopback.
    """
    near, far, transport = stream_pair(stack)
    if transport != "tcp":
        raise OSError(errno.ENETDOWN, "needs TCP over the loopback, which is down")
    return near, far


def notif_user_data() -> Outcome:
    """The notification of a zero-copy send has the user data that sqe->addr3 gives it; the result
    keeps that of the request.

    No flag asks for it; before 7.1 addr3 had to be zero (io_send_zc_prep(), io_uring/net.c).
    """
    own, asked_for, data = 11, 0x0123456789ABCDEF, payload(4096)
    with ExitStack() as stack:
        near, far = loopback_pair(stack)
        ring = stack.enter_context(RawRing())
        ring.push(
            lib.IOX_PROBE_OP_SEND_ZC,
            fd=near.fileno(),
            addr=ring.keep(data),
            len=len(data),
            op_flags=socket.MSG_WAITALL,
            addr3=asked_for,
            user_data=own,
        )
        found = ring.collect(1)
        if refusal := refusal_of(found, "user data of a notification"):
            return refusal
        got = b""
        while len(got) < len(data) and (piece := far.recv(len(data) - len(got))):
            got += piece
        if len(found) < 2:  # the notification may wait for the peer to have taken the bytes
            found += ring.collect(1)
        evidence: dict[str, object] = {
            "completions": described(found),
            "user_data": [f"{c.user_data:#x}" for c in found],
            "asked_for": f"{asked_for:#x}",
            "bytes_intact": got == data,
        }
        told = [(c.user_data, c.notif) for c in found]
        seen = told == [(own, False), (asked_for, True)] and got == data
        return verdict(seen, evidence, "the notification had not the user data that was asked for")


_PAGE = 4096


def send_recv_fixed() -> Outcome:
    """A plain send and a plain receive use a registered buffer, and refuse memory beside it.

    Only what refuses such memory has looked at the registration: a kernel that took the flag and
    ignored it would have sent from any address.
    """
    data = payload(3000)
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        memory, beside = bytearray(4 * _PAGE), bytearray(_PAGE)
        memory[: len(data)] = data
        start = ring.keep(memory)
        vector = ffi.new("uint64_t[2]", [start, len(memory)])  # struct iovec
        if (result := ring.register(lib.IOX_REGISTER_BUFFERS, vector)) < 0:
            raise os_error(result, "IORING_REGISTER_BUFFERS")

        def ask(opcode: int, fd: int, address: int) -> Completion | None:
            ring.push(
                opcode,
                fd=fd,
                addr=address,
                len=len(data),
                op_flags=socket.MSG_WAITALL,
                ioprio=lib.IOX_RECVSEND_FIXED_BUF,
            )
            found = ring.collect(1)
            return found[0] if found else None

        sent = ask(lib.IOX_PROBE_OP_SEND, near.fileno(), start)
        if refusal := refusal_of([sent] if sent else [], "a send from a registered buffer"):
            return refusal
        came = ask(lib.IOX_PROBE_OP_RECV, far.fileno(), start + 2 * _PAGE)
        if refusal := refusal_of([came] if came else [], "a receive into a registered buffer"):
            return refusal
        outside = ask(lib.IOX_PROBE_OP_SEND, near.fileno(), ring.keep(beside))
        intact = bytes(memory[2 * _PAGE : 2 * _PAGE + len(data)]) == data
        told = [c.describe() if c else "nothing" for c in (sent, came, outside)]
        evidence: dict[str, object] = {
            "send": told[0],
            "receive": told[1],
            "send_from_beside": told[2],
            "bytes_intact": intact,
            "transport": transport,
        }
        moved = [c.res if c else None for c in (sent, came)] == [len(data)] * 2
        seen = moved and intact and outside is not None and outside.res == -errno.EFAULT
        return verdict(seen, evidence, "no bytes through the buffer, or memory beside it was taken")
