# SPDX-License-Identifier: MIT
"""A read into a provided buffer that fails."""

from __future__ import annotations

import errno
import socket
import struct

from ioxide._errata.connections import pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.waiting import OP_READ, described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

MESSAGE = pattern(100)


def _reset_while_reading(opcode: int) -> list[Completion]:
    """A read that waits while its connection is reset, and one of another connection after it."""
    with (
        RawRing() as ring,
        Provided(ring) as buffers,
        tcp_pair() as (near, far),
        tcp_pair() as (second, other),
    ):
        ring.push(
            opcode,
            fd=far.fileno(),
            len=buffers.size,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
        )
        assert ring.enter() == 1
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        near.close()
        found = ring.collect(1)
        # The control: the read failed.
        assert [-errno.ECONNRESET] == [c.res for c in found], described(found)
        second.sendall(MESSAGE)
        waiting(other, len(MESSAGE))
        ring.recv(other.fileno(), group=buffers.group)
        found += ring.collect(1)
        assert [len(MESSAGE)] == [c.res for c in found[1:]], described(found)
        bid = found[1].buffer_id
        assert bid is not None
        assert MESSAGE == buffers.read(bid, len(MESSAGE))
        return found


@reproducer("IOX-ERR-023", needs=("PBUF_RING",))
def failed_read_and_its_buffer() -> None:
    """IOX-ERR-023: a read that fails names no buffer that stays in the ring.

    https://github.com/axboe/liburing/issues/1530, on 6.12.
    """
    found = _reset_while_reading(OP_READ)
    named, used = found[0].buffer_id, found[1].buffer_id
    if named is not None and named == used:
        raise ErratumPresent(
            "IOX-ERR-023",
            f"{described(found)}: who provides buffer {named} again has it in the ring twice",
        )


@control(needs=("PBUF_RING",))
def failed_receive_and_its_buffer() -> None:
    """The control of IOX-ERR-023: a receive that fails names none, or one that it uses up."""
    found = _reset_while_reading(lib.IOX_PROBE_OP_RECV)
    assert found[0].buffer_id is None or found[0].buffer_id != found[1].buffer_id, described(found)
