# SPDX-License-Identifier: MIT
"""Bundles (IORING_RECVSEND_BUNDLE, 6.10) that spoil a buffer, or put bytes out of order."""

from __future__ import annotations

import errno
import socket

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.provided import Provided
from ioxide._errata.streams import incremental_disorder, plain_disorder
from ioxide._errata.waiting import described, waiting
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib


@reproducer("IOX-ERR-004", needs=("BUNDLE",))
def bundle_that_finds_no_data() -> None:
    """IOX-ERR-004: a bundle asked for 100 bytes that ends with EAGAIN leaves its buffer as it was.

    Reported to the io_uring list by Federico Brasili in 2026; liburing a75935ed describes it.
    """
    message = pattern(1000)
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring) as buffers,
    ):
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            len=100,
            op_flags=socket.MSG_DONTWAIT,
            ioprio=lib.IOX_RECVSEND_BUNDLE,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
        )
        found = ring.collect(1)
        assert [-errno.EAGAIN] == [c.res for c in found], described(found)
        length = buffers.length(0)

        near.sendall(message)
        waiting(far, len(message))
        ring.recv(far.fileno(), group=buffers.group)  # no bundle, no length: the whole buffer
        found += ring.collect(1)
        assert [c.buffer_id for c in found[1:]] in ([0], [1]), described(found)
        # Where the first receive has used buffer 0 up, that is IOX-ERR-013, which has its own test.
        # What its entry says means nothing then: 6.11.11 may write there what it expects, which is
        # whatever stood in memory (`msg_inq` of io_msg_alloc_async(), not set before the receive).
        used_up = found[1].buffer_id == 1
        if (4096 if used_up else length, found[1].res) != (4096, 1000):
            assert (100, 100) == (length, found[1].res), (
                f"the entry says {length}; {described(found)}"
            )
            raise ErratumPresent(
                "IOX-ERR-004",
                f"{described(found)}: the entry of buffer 0 says {length} bytes, given were 4096",
            )
        assert message == buffers.read(found[1].buffer_id or 0, 1000)


@control(needs=("BUNDLE",))
def buffer_is_whole_where_no_bundle_was() -> None:
    """The control of IOX-ERR-004: without the flag the same two receives leave the entry alone."""
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring) as buffers,
    ):
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            len=100,
            op_flags=socket.MSG_DONTWAIT,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
        )
        found = ring.collect(1)
        near.sendall(pattern(1000))
        waiting(far, 1000)
        ring.recv(far.fileno(), group=buffers.group)
        found += ring.collect(1)
        assert [-errno.EAGAIN, 1000] == [c.res for c in found], described(found)
        assert buffers.length(0) == 4096


def _drained(ring: RawRing, near: socket.socket, far: socket.socket) -> None:
    """One receive that leaves nothing behind. What 6.10 and 6.11 expect of a bundle is what the
    receive before it left (`msg_inq` of io_msg_alloc_async()), or whatever stood in memory."""
    near.sendall(b"x")
    waiting(far, 1)
    ring.push(lib.IOX_PROBE_OP_RECV, fd=far.fileno(), addr=ring.keep(bytearray(1)), len=1)
    assert [1] == [c.res for c in ring.collect(1)]


def _hundred(flags: int) -> tuple[list[Completion], bytes]:
    """What a receive of 100 bytes gets of 1000 that wait, and what the first buffer holds then."""
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring) as buffers,
    ):
        _drained(ring, near, far)
        near.sendall(pattern(1000))
        waiting(far, 1000)
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            len=100,
            ioprio=flags,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
        )
        return ring.collect(1), buffers.read(0, 1000)


@reproducer("IOX-ERR-012", needs=("BUNDLE",))
def bundle_of_a_given_length() -> None:
    """IOX-ERR-012: a bundle asked for 100 bytes takes no more of what waits.

    The second case that liburing a75935ed describes.
    """
    found, held = _hundred(lib.IOX_RECVSEND_BUNDLE)
    assert [0] == [c.buffer_id for c in found], described(found)
    if found[0].res == 1000:
        assert pattern(1000) == held
        raise ErratumPresent("IOX-ERR-012", f"{described(found)}: asked for were 100 bytes")
    assert [100] == [c.res for c in found], described(found)
    assert pattern(1000)[:100] == held[:100]


@control(needs=("BUNDLE",))
def receive_of_a_given_length() -> None:
    """The control of IOX-ERR-012: without the flag a receive keeps to the length it was given."""
    found, held = _hundred(0)
    assert [(100, 0)] == [(c.res, c.buffer_id) for c in found], described(found)
    assert pattern(1000)[:100] == held[:100]


def _marked(near: socket.socket, before: bytes, after: bytes) -> None:
    """Send both with an urgent mark between them, at which every receive stops short."""
    near.sendall(before)
    near.send(after[:1], socket.MSG_OOB)
    near.sendall(after[1:])


@reproducer("IOX-ERR-005", needs=("BUNDLE",))
def short_receive_with_more_waiting() -> None:
    """IOX-ERR-005: a receive that ends short while more waits does not leave a gap in the bundle.

    https://github.com/axboe/liburing/issues/1409.  There a stream in full flow makes receives end
    short now and then; an urgent mark in the stream makes them do it every time.
    """
    before, after = pattern(1500), pattern(700)
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, entries=16, size=1024) as buffers,
    ):
        _drained(ring, near, far)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        _marked(near, before, after)
        waiting(far, len(before) + len(after))
        found = _bundles(ring, far, buffers.group, len(before) + len(after))
        if disorder := plain_disorder(before + after, found, buffers):
            raise ErratumPresent("IOX-ERR-005", f"{disorder} ({described(found)})")
        # The control: a receive did stop at the mark, with more waiting behind it.
        assert len(before) in _ends(found), f"none stopped at the mark: {described(found)}"


@control(needs=("BUNDLE",))
def urgent_mark_ends_a_receive_short() -> None:
    """The control of IOX-ERR-005: recv(2) itself stops at the mark, although more is there."""
    with tcp_pair() as (near, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        _marked(near, pattern(1500), pattern(700))
        waiting(far, 2200)
        assert [1500, 700] == [len(far.recv(4096)), len(far.recv(4096))]


@reproducer(
    "IOX-ERR-006",
    needs=(
        "BUNDLE",
        "INC_BUNDLE",
    ),
)
def bundles_in_incremental_buffers() -> None:
    """IOX-ERR-006: bundles in incremental buffers stand one behind the other, in order.

    https://github.com/axboe/liburing/issues/1423 and 1432: repeated receives of one request took
    more of a buffer than they had filled.
    """
    messages = [pattern(length, seed=length) for length in (5000, 700, 9000, 64, 12000, 3000)]
    stream = b"".join(messages)
    with (
        tcp_pair() as (near, far),
        RawRing(flags=REACTOR_FLAGS) as ring,
        Provided(ring, entries=32, size=1024, flags=lib.IOX_PBUF_RING_INC) as buffers,
    ):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        found: list[Completion] = []
        for before, after in zip(messages[::2], messages[1::2], strict=True):
            _marked(near, before, after)
            waiting(far, len(before) + len(after))
            found += _bundles(ring, far, buffers.group, len(before) + len(after))
            if disorder := incremental_disorder(stream, found, buffers):
                raise ErratumPresent("IOX-ERR-006", f"{disorder} ({described(found)})")
        assert len(stream) == sum(c.res for c in found), described(found)
        # The control: there were bundles, that is, completions over more than one buffer.
        widest = max(c.res for c in found)
        assert widest > 1024, f"no completion spanned two buffers: {described(found)}"


def _bundles(ring: RawRing, far: socket.socket, group: int, length: int) -> list[Completion]:
    """The completions of one multishot bundle receive, armed again when it ends, for `length`."""
    found: list[Completion] = []
    armed = False
    while sum(c.res for c in found) < length:
        if not armed:
            flags = lib.IOX_RECV_MULTISHOT | lib.IOX_RECVSEND_BUNDLE
            ring.recv(far.fileno(), group=group, ioprio=flags)
        new = ring.collect(1)
        assert new, f"{sum(c.res for c in found)} of {length} bytes came: {described(found)}"
        assert all(c.res > 0 for c in new), described(found + new)
        found += new
        armed = new[-1].more
    if armed:
        ring.push(lib.IOX_PROBE_OP_ASYNC_CANCEL, fd=-1, op_flags=_CANCEL_ALL, user_data=1)
        ended = ring.collect(2)
        assert len(ended) == 2, f"the receive was not cancelled: {described(ended)}"
    return found


_CANCEL_ALL = 1 << 0 | 1 << 2  # IORING_ASYNC_CANCEL_ALL | _ANY, 5.19


def _ends(found: list[Completion]) -> set[int]:
    """How many bytes had come after each completion."""
    return {sum(c.res for c in found[: number + 1]) for number in range(len(found))}
