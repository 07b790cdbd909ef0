# SPDX-License-Identifier: MIT
"""recvmsg and incremental buffers (IOU_PBUF_RING_INC, 6.12): what a buffer's tail is good for."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ioxide._errata.connections import REACTOR_FLAGS, pattern
from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.provided import Provided, takes_min_left
from ioxide._errata.waiting import OP_RECVMSG, described, waiting
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

# struct msghdr with a name of 16 bytes and nothing else: the kernel puts struct
# io_uring_recvmsg_out (16 bytes), the name and the payload into the provided buffer.
NAME = 16
HEADER = 16 + NAME
MSGHDR = struct.pack("=QI4xQQQQi4x", 0, NAME, 0, 0, 0, 0, 0)
OUT = struct.Struct("=IIII")


@contextmanager
def _datagrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as near,
        socket.socket(type=socket.SOCK_DGRAM) as far,
    ):
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        yield near, far


@reproducer(
    "IOX-ERR-009",
    needs=(
        "INC",
        "MULTISHOT_RECV",
    ),
)
def message_at_the_tail_of_a_buffer() -> None:
    """IOX-ERR-009: a buffer whose rest is too small for a message's header is left for the next.

    https://github.com/axboe/liburing/issues/1433.  Where the kernel takes min_left, the smallest
    rest that still counts, it is asked to; where it does not, the rest is used and is EFAULT.
    """
    payload = 88  # with its header 120 bytes: two fill a buffer of 256 up to a rest of 16
    with _datagrams() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        min_left = HEADER + payload if takes_min_left(ring) else 0
        with Provided(ring, size=256, flags=lib.IOX_PBUF_RING_INC, min_left=min_left) as buffers:
            ring.push(
                OP_RECVMSG,
                fd=far.fileno(),
                addr=ring.keep(MSGHDR),
                len=1,
                ioprio=lib.IOX_RECV_MULTISHOT,
                flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
                buf_group=buffers.group,
            )
            messages = [pattern(payload, seed=seed) for seed in range(3)]
            found = []
            for message in messages:
                near.send(message)
                found += ring.collect(1)
            # The control: two messages stand in buffer 0, which leaves 16 of its 256 bytes.
            assert [(HEADER + payload, 0)] * 2 == [(c.res, c.buffer_id) for c in found[:2]], (
                described(found)
            )
            assert len(found) == 3, f"nothing came of the third message: {described(found)}"
            if found[2].res == -errno.EFAULT:
                asked = f"min_left={min_left}" if min_left else "min_left is refused"
                raise ErratumPresent("IOX-ERR-009", f"{asked}; {described(found)}")
            places = [(0, 0), (0, HEADER + payload), (1, 0)]
            assert [bid for bid, _ in places] == [c.buffer_id for c in found], described(found)
            assert messages == [
                buffers.read(bid, payload, offset=offset + HEADER) for bid, offset in places
            ]


@reproducer(
    "IOX-ERR-011",
    needs=(
        "INC",
        "MULTISHOT_RECV",
    ),
)
def truncated_message_and_the_buffer_after_it() -> None:
    """IOX-ERR-011: a datagram cut off at the end of a buffer takes nothing of the next one.

    https://github.com/axboe/liburing/issues/1619: with MSG_TRUNC the result is the datagram's
    length, and the kernel consumed as much, also of buffers that it wrote nothing to.  Some kernels
    notice that it is more than there was, and say so in their log (io_uring/kbuf.h, on 6.12.43).
    """
    with (
        _datagrams() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, entries=2, size=128, flags=lib.IOX_PBUF_RING_INC) as buffers,
    ):
        found = []
        for message in (pattern(192), pattern(16)):
            near.send(message)
            waiting(far, 1)
            ring.push(
                OP_RECVMSG,
                fd=far.fileno(),
                addr=ring.keep(MSGHDR),
                len=1,
                op_flags=socket.MSG_TRUNC,
                flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
                buf_group=buffers.group,
            )
            found += ring.collect(1)
        # The control: the first was cut off, its result is its length, buffer 0 holds what fits.
        assert [(192, 0), (16, 1)] == [(c.res, c.buffer_id) for c in found], described(found)
        assert pattern(192)[:128] == buffers.read(0, 128)
        if buffers.read(1, 16, offset=64) == pattern(16):
            raise ErratumPresent(
                "IOX-ERR-011",
                f"{described(found)}: 64 bytes of buffer 1 were left out that nothing was put into",
            )
        assert pattern(16) == buffers.read(1, 16)
