# SPDX-License-Identifier: MIT
"""Sends from memory that the kernel was given before: registered buffers, and provided ones."""

from __future__ import annotations

import errno
import socket
import struct
import time

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import described
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import ffi, lib

REGISTER_BUFFERS = 0
FIXED_BUF, VECTORIZED = 1 << 2, 1 << 5  # IORING_RECVSEND_FIXED_BUF, IORING_SEND_VECTORIZED (6.17)
OP_SENDMSG_ZC = 48  # IORING_OP_SENDMSG_ZC, 6.1
MESSAGE = pattern(4096)
WAYS = {
    "sendmsg": (OP_SENDMSG_ZC, FIXED_BUF),
    "zero-copy send": (lib.IOX_PROBE_OP_SEND_ZC, FIXED_BUF | VECTORIZED),
    "send": (lib.IOX_PROBE_OP_SEND, FIXED_BUF | VECTORIZED),
}


def _vectored(way: str, *, within: bool) -> tuple[list[Completion], bytes]:
    """What a send of a vector says that names a registered buffer, and what arrives of it; the
    vector is of memory `within` that buffer or outside of it."""
    opcode, flags = WAYS[way]
    with tcp_pair() as (near, far), RawRing() as ring:
        registered, outside = bytearray(MESSAGE), bytearray(MESSAGE[::-1])
        vector = struct.pack("=QQ", ring.keep(registered), len(registered))
        result = lib.iox_probe_register(ring.raw, REGISTER_BUFFERS, ffi.from_buffer(vector), 1)
        assert result == 0, f"IORING_REGISTER_BUFFERS: {result}"
        chosen = registered if within else outside
        parts = struct.pack("=QQ", ring.keep(chosen), len(chosen))
        header = struct.pack("=QI4xQQQQi4x", 0, 0, ring.keep(parts), 1, 0, 0, 0)
        ring.push(
            opcode,
            fd=near.fileno(),
            addr=ring.keep(header if opcode == OP_SENDMSG_ZC else parts),
            len=1,
            ioprio=flags,
            buf_group=0,
        )
        found = ring.collect(lambda all: any(not c.more for c in all))
        assert found, "the send was not answered"
        got = b""
        if found[0].res > 0:
            while len(got) < found[0].res:
                got += far.recv(65536)
        return found, got


@reproducer("IOX-ERR-025", needs=("SEND_ZC",))
def vector_of_another_buffer() -> None:
    """IOX-ERR-025: a send of a vector that names a registered buffer sends of that buffer alone.

    What is not in the buffer is EFAULT; a kernel that has no vectors of registered buffers is to
    refuse the flag, not to ignore it.
    """
    for way in WAYS:
        found, got = _vectored(way, within=False)
        if found[0].res > 0:
            assert got == MESSAGE[::-1][: found[0].res]
            raise ErratumPresent(
                "IOX-ERR-025",
                f"{way}: {described(found)}: sent was memory that is not in the named buffer",
            )
        refusals = (-errno.EFAULT, -errno.EINVAL, -errno.EOPNOTSUPP)
        assert found[0].res in refusals, f"{way}: {described(found)}"


@control(needs=("SEND_ZC",))
def vector_of_its_buffer() -> None:
    """The control of IOX-ERR-025: memory of the named buffer is sent, or the flag is refused."""
    for way in WAYS:
        found, got = _vectored(way, within=True)
        if found[0].res not in (-errno.EINVAL, -errno.EOPNOTSUPP):
            assert found[0].res > 0, f"{way}: {described(found)}"
            assert got == MESSAGE[: found[0].res]


@reproducer("IOX-ERR-026", needs=("PBUF_RING",))
def sends_in_the_order_of_their_buffers() -> None:
    """IOX-ERR-026: sends from provided buffers send them in the order in which they were provided.

    https://github.com/axboe/liburing/issues/1528: a send that found the socket full kept its buffer
    while it waited, so that a later one sent the buffer behind it first.
    """
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, entries=2, size=4096) as buffers,
    ):
        for bid in (0, 1):
            buffers.write(bid, pattern(buffers.size, seed=bid))
        filler = _fill(near)
        send = {
            "fd": near.fileno(),
            "flags": lib.IOX_PROBE_SQE_BUFFER_SELECT,
            "buf_group": buffers.group,
        }
        ring.push(lib.IOX_PROBE_OP_SEND, user_data=0, **send)
        assert ring.enter() == 1
        early = ring.reap()
        if early and early[0].res in (-errno.EINVAL, -errno.EOPNOTSUPP):  # 6.9 and older
            return
        # The control: the first send waits, for the socket is full.
        assert not early, described(early)
        while filler:
            filler -= len(far.recv(min(filler, 1 << 20)))
        # The first has not been run again: its ring runs nothing until it is entered.
        ring.push(lib.IOX_PROBE_OP_SEND, user_data=1, **send)
        found = ring.collect(2)
        assert len(found) == 2, described(found)
        # A send takes its buffer; on 6.10 the next one, too, and the second send finds none.
        total = sum(max(c.res, 0) for c in found)
        got = b""
        while len(got) < total:
            got += far.recv(65536)
        first, second = (pattern(buffers.size, seed=bid) for bid in (0, 1))
        if got == second + first:
            raise ErratumPresent(
                "IOX-ERR-026", f"{described(found)}: buffer 1 was sent before buffer 0"
            )
        assert got == first + second, described(found)


def _fill(near: socket.socket) -> int:
    """Send until the socket takes nothing for a while: how many bytes it took."""
    near.setblocking(False)
    filled, refused = 0, 0
    while refused < 5:
        try:
            filled += near.send(bytes(65536))
            refused = 0
        except BlockingIOError:
            refused += 1
            time.sleep(0.02)
    near.setblocking(True)
    return filled
