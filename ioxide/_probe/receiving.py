# SPDX-License-Identifier: MIT
"""Experiments on receiving: provided buffers, multishot, bundles, incremental buffers."""

from __future__ import annotations

from contextlib import ExitStack

from ioxide._probe.outcome import (
    REFUSALS,
    Outcome,
    described,
    failed,
    payload,
    received,
    refusal_of,
    refused,
    stream_pair,
    verdict,
)
from ioxide._probe.rawring import BufferRing, Completion, RawRing
from ioxide._ring import lib

# sqe->optlen is in a union with file_index.
_LIMIT_FIELD = "file_index"


def _provide(ring: RawRing, what: str, **how: int) -> BufferRing | Outcome:
    try:
        return ring.provide(group=7, **how)
    except OSError as error:
        if error.errno in REFUSALS:
            return refused(-error.errno, what)
        raise


def pbuf_ring() -> Outcome:
    """Two receives land in two different provided buffers, with the right bytes in each."""
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(ring, "IORING_REGISTER_PBUF_RING", entries=4, size=64)
        if isinstance(buffers, Outcome):
            return buffers
        found: list[Completion] = []
        intact = True
        for message in (payload(48), payload(33)):
            near.sendall(message)
            ring.recv(far.fileno(), group=buffers.group)
            found += ring.collect(1)
            last = found[-1] if found else None
            if last is None or last.buffer_id is None or last.res != len(message):
                intact = False
                break
            intact = intact and buffers.read(last.buffer_id, last.res) == message
        ids = [c.buffer_id for c in found]
        seen = intact and len(set(ids)) == 2
        evidence: dict[str, object] = {
            "buffer_ids": ids,
            "completions": described(found),
            "bytes_intact": intact,
            "transport": transport,
        }
        return verdict(seen, evidence, "the two receives did not fill two provided buffers")


def multishot_recv() -> Outcome:
    """One request delivers two messages that were sent one after the other."""
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(ring, "IORING_REGISTER_PBUF_RING", entries=4, size=64)
        if isinstance(buffers, Outcome):
            return buffers
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECV_MULTISHOT)
        found: list[Completion] = []
        got = []
        messages = [payload(40), payload(50)]
        for message in messages:
            near.sendall(message)
            found += ring.collect(1)
            if not found or found[-1].buffer_id is None:
                break
            got.append(buffers.read(found[-1].buffer_id, found[-1].res))
        if refusal := refusal_of(found, "a multishot receive"):
            return refusal
        evidence: dict[str, object] = {
            "requests": 1,
            "completions": described(found),
            "bytes_intact": got == messages,
            "transport": transport,
        }
        seen = got == messages and all(c.more for c in found)
        return verdict(seen, evidence, "one request did not deliver two messages with F_MORE")


def bundle() -> Outcome:
    """A single completion spans more than one provided buffer, its bytes in order."""
    data = payload(6000)
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(ring, "IORING_REGISTER_PBUF_RING", entries=16, size=1024)
        if isinstance(buffers, Outcome):
            return buffers
        near.sendall(data)  # all of it waits before the receive is armed
        flags = lib.IOX_RECV_MULTISHOT | lib.IOX_RECVSEND_BUNDLE
        ring.recv(far.fileno(), group=buffers.group, ioprio=flags)
        found = ring.collect(lambda cqes: failed(cqes) or received(cqes) >= len(data))
        if refusal := refusal_of(found, "IORING_RECVSEND_BUNDLE"):
            return refusal
        got = b""
        widest = 0
        for cqe in found:
            if cqe.res > 0 and cqe.buffer_id is not None:
                got += buffers.span(cqe.buffer_id, cqe.res)
                widest = max(widest, -(-cqe.res // buffers.size))
        evidence: dict[str, object] = {
            "buffers_in_one_completion": widest,
            "buffer_size": buffers.size,
            "completions": described(found),
            "bytes_intact": got == data,
            "transport": transport,
        }
        seen = widest > 1 and got == data
        return verdict(seen, evidence, "no completion spanned more than one buffer")


def inc() -> Outcome:
    """A second receive is appended to the same buffer, after a completion with BUF_MORE."""
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(
            ring, "IOU_PBUF_RING_INC", entries=2, size=4096, flags=lib.IOX_PBUF_RING_INC
        )
        if isinstance(buffers, Outcome):
            return buffers
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECV_MULTISHOT)
        messages = [payload(1000), payload(700)]
        found: list[Completion] = []
        for message in messages:
            near.sendall(message)
            found += ring.collect(1)
            if not (found and found[-1].more):
                break  # there will be no second one
        if refusal := refusal_of(found, "a multishot receive"):
            return refusal
        evidence: dict[str, object] = {
            "buffer_ids": [c.buffer_id for c in found],
            "completions": described(found),
            "transport": transport,
        }
        whole = b"".join(messages)
        first, second = (c.buffer_id for c in found) if len(found) == 2 else (None, None)
        appended = (
            first is not None
            and first == second
            and [c.res for c in found] == [len(m) for m in messages]
            and buffers.read(first, len(whole)) == whole
        )
        if appended:
            evidence["appended_at"] = len(messages[0])
        evidence["bytes_intact"] = appended
        seen = appended and found[0].buf_more
        return verdict(seen, evidence, "no second receive was appended to a BUF_MORE buffer")


def inc_bundle() -> Outcome:
    """A bundle goes on from a begun incremental buffer into the next one, its bytes in order.

    6.13 looks at one buffer only (io_ring_buffers_peek(), io_uring/kbuf.c), and so takes as many
    completions as buffers.
    """
    data = payload(6000)
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(
            ring, "IOU_PBUF_RING_INC", entries=4, size=4096, flags=lib.IOX_PBUF_RING_INC
        )
        if isinstance(buffers, Outcome):
            return buffers
        near.sendall(data)  # all of it waits before the receive is armed
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECVSEND_BUNDLE)
        found = ring.collect(1)
        if refusal := refusal_of(found, "IORING_RECVSEND_BUNDLE"):
            return refusal
        first = found[0]
        evidence: dict[str, object] = {
            "buffer_size": buffers.size,
            "completions": described(found),
            "transport": transport,
        }
        seen = (
            first.buffer_id == 0 and first.res == len(data) and buffers.span(0, first.res) == data
        )
        return verdict(seen, evidence, "the bundle ended with the first buffer")


def recv_mshot_lim() -> Outcome:
    """A multishot receive with a limit of two buffers ends by itself after two, and leaves the rest
    of what waits in the socket.

    The limit is sqe->optlen; before 6.17 the field had to be zero (io_recvmsg_prep(),
    io_uring/net.c).
    """
    data = payload(4000)
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = _provide(ring, "IORING_REGISTER_PBUF_RING", entries=8, size=512)
        if isinstance(buffers, Outcome):
            return buffers
        near.sendall(data)
        limit = 2 * buffers.size
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            ioprio=lib.IOX_RECV_MULTISHOT,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=buffers.group,
            **{_LIMIT_FIELD: limit},
        )
        found = ring.collect(lambda cqes: any(not c.more for c in cqes))
        if refusal := refusal_of(found, "a limit of a multishot receive"):
            return refusal
        rest = b"" if received(found) >= len(data) else far.recv(len(data))
        evidence: dict[str, object] = {
            "limit": limit,
            "waiting": len(data),
            "completions": described(found),
            "next_byte_in_order": data[limit:].startswith(rest) and rest != b"",
            "transport": transport,
        }
        seen = (
            received(found) == limit
            and [c.more for c in found] == [True] * (len(found) - 1) + [False]
            and evidence["next_byte_in_order"] is True
        )
        return verdict(seen, evidence, "the receive did not end at its limit")


def min_left() -> Outcome:
    """An incremental buffer in which fewer bytes are left than asked for is retired, and the next
    receive goes on in the next buffer."""
    with ExitStack() as stack:
        near, far, transport = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        least, first, second = 256, payload(1000), payload(100)
        buffers = _provide(
            ring,
            "min_left of a buffer ring",
            entries=2,
            size=1024,
            flags=lib.IOX_PBUF_RING_INC,
            min_left=least,
        )
        if isinstance(buffers, Outcome):
            return buffers
        ring.recv(far.fileno(), group=buffers.group, ioprio=lib.IOX_RECV_MULTISHOT)
        found: list[Completion] = []
        for message in (first, second):
            near.sendall(message)
            found += ring.collect(1)
            if not (found and found[-1].more):
                break  # there will be no second one
        if refusal := refusal_of(found, "a multishot receive"):
            return refusal
        evidence: dict[str, object] = {
            "min_left": least,
            "left_in_first": buffers.size - len(first),
            "completions": described(found),
            "transport": transport,
        }
        seen = (
            [(c.res, c.buffer_id, c.buf_more) for c in found]
            == [(len(first), 0, False), (len(second), 1, True)]
            and buffers.read(0, len(first)) == first
            and buffers.read(1, len(second)) == second
        )
        return verdict(seen, evidence, "the buffer with too few bytes left was used on")
