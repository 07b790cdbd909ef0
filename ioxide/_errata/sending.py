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
VECTOR_BYTES = 16  # struct iovec
WAYS = {
    "sendmsg": (OP_SENDMSG_ZC, FIXED_BUF),
    "zero-copy send": (lib.IOX_PROBE_OP_SEND_ZC, FIXED_BUF | VECTORIZED),
    "send": (lib.IOX_PROBE_OP_SEND, FIXED_BUF | VECTORIZED),
}


def _sent(
    ring: RawRing, near: socket.socket, far: socket.socket, **fields: int
) -> tuple[list[Completion], bytes]:
    """What one send says, and what arrives of it."""
    ring.push(fd=near.fileno(), buf_group=0, **fields)
    found = ring.collect(lambda all: any(not c.more for c in all))
    assert found, "the send was not answered"
    got = b""
    while len(got) < found[0].res:
        got += far.recv(65536)
    return found, got


def _registered(ring: RawRing) -> tuple[int, int]:
    """The addresses of a registered buffer's two parts: a vector of the second, and `MESSAGE`."""
    memory = bytearray(VECTOR_BYTES) + MESSAGE
    begin = ring.keep(memory)
    memory[:VECTOR_BYTES] = struct.pack("=QQ", begin + VECTOR_BYTES, len(MESSAGE))
    buffers = struct.pack("=QQ", begin, len(memory))
    result = lib.iox_probe_register(ring.raw, REGISTER_BUFFERS, ffi.from_buffer(buffers), 1)
    assert result == 0, f"IORING_REGISTER_BUFFERS: {result}"
    return begin, begin + VECTOR_BYTES


def _vectored(way: str, *, within: bool) -> tuple[list[Completion], bytes]:
    """What a send of a vector says that names a registered buffer, and what arrives of it; the
    vector is of memory `within` that buffer or outside of it.  The vector itself is in the buffer.
    """
    opcode, flags = WAYS[way]
    with tcp_pair() as (near, far), RawRing() as ring:
        vector, _ = _registered(ring)
        if not within:
            vector = ring.keep(struct.pack("=QQ", ring.keep(MESSAGE[::-1]), len(MESSAGE)))
        header = ring.keep(struct.pack("=QI4xQQQQi4x", 0, 0, vector, 1, 0, 0, 0))
        addr = header if opcode == OP_SENDMSG_ZC else vector
        return _sent(ring, near, far, opcode=opcode, addr=addr, len=1, ioprio=flags)


@reproducer("IOX-ERR-025", needs=("SEND_ZC",))
def vector_of_another_buffer() -> None:
    """IOX-ERR-025: a send of a vector that names a registered buffer sends of that buffer alone.

    What is not in the buffer is EFAULT; a kernel that has no vectors of registered buffers is to
    refuse the flags, and to ignore neither.
    """
    for way in WAYS:
        found, got = _vectored(way, within=True)
        if 0 < found[0].res and got != MESSAGE[: found[0].res]:
            raise ErratumPresent(
                "IOX-ERR-025",
                f"{way}: {described(found)}: sent was the vector, not the memory that it names",
            )
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
def message_of_a_registered_buffer() -> None:
    """The control of IOX-ERR-025: without a vector the memory of the named buffer is sent."""
    with tcp_pair() as (near, far), RawRing() as ring:
        _, message = _registered(ring)
        send = {"opcode": lib.IOX_PROBE_OP_SEND_ZC, "ioprio": FIXED_BUF}
        found, got = _sent(ring, near, far, addr=message, len=len(MESSAGE), **send)
    assert found[0].res == len(MESSAGE), described(found)
    assert got == MESSAGE


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
