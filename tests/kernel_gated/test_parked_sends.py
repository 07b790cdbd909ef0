# SPDX-License-Identifier: MIT
"""Sends that a closed window holds up while their connection ends, or half of it does.

The memory of such a SEND is the kernel's until its completion, and so are descriptor and object:
given to the next connection too early, one peer would get another one's bytes; written to by its
own handler, which goes on after the peer's FIN, bytes would be overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, SENDS, Changes, brief
from tests.support import (
    NARROW,
    Whole,
    connect,
    noise,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_fds,
    widen,
)

pytestmark = pytest.mark.kernel_gated

ANSWERS, ANSWER = 1000, 8000  # together more than two sockets hold
SLAB = 8 << 20  # all of them in one slab, which the next connection would be given
ROUNDS = 5


def _until_the_cut(client: socket.socket) -> bytes:
    data = bytearray()
    widen(client)
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 20):
            data += part
    return bytes(data)


class Answering:
    """Answers each byte by `ANSWER` like it; after the peer's FIN it ends, or aborts."""

    def __init__(self, *, abort: bool) -> None:
        self._abort = abort
        self.first: ioxide.Connection | None = None
        self.parked = 0  # bytes of the first connection that had not been taken when it ended
        self.ended = False

    async def __call__(self, conn: ioxide.Connection) -> None:
        first = self.first is None
        if first:
            self.first = conn
        while requests := await conn.recv():
            for number in range(len(requests)):
                conn.write(requests[number : number + 1] * ANSWER)
        if first:
            self.parked = conn.unsent
            if self._abort:
                conn.abort()
            self.ended = True


@pytest.mark.issue(221)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("end", ["returns", "aborts"])
def test_a_parked_send_carries_nobody_elses_bytes(end: str, send: Changes, mode: Changes) -> None:
    """A connection ends with its SEND parked, another follows: each peer gets its own bytes."""
    handler = Answering(abort=end == "aborts")
    with serve(handler, write_slab_size=SLAB, pool_max=4, **mode, **send) as server:
        with connect(server, rcvbuf=4096) as one, connect(server) as two:
            one.sendall(b"A" * ANSWERS)
            until(lambda: server.stats().sends >= 1, "the first connection's SEND")
            one.shutdown(socket.SHUT_WR)
            until(lambda: handler.ended, "the end of the first handler")
            assert handler.parked > 0, "nothing was parked"

            two.sendall(b"B" * ANSWERS)
            answer = read_exactly(two, ANSWERS * ANSWER)
            assert ANSWERS * ANSWER == answer.count(b"B")
            if end == "returns":
                assert handler.first is not None
                assert handler.first.unsent > 0, "not parked any more"

            stream = _until_the_cut(one)
            foreign = len(stream) - stream.count(b"A")
            assert 0 == foreign, f"{foreign} foreign bytes in the first stream"
            if end == "returns":
                assert ANSWERS * ANSWER == len(stream)
        until(lambda: server.stats().connections_now == 0, "both ended")
        assert (end == "aborts") == server.stats().aborts


@pytest.mark.issue(221)
@pytest.mark.parametrize("mode", brief(MODES))
def test_a_send_that_ends_while_the_handler_waits_elsewhere(mode: Changes) -> None:
    """A closed connection goes when its SEND is over, whatever its handler is waiting for."""
    waiting: list[asyncio.Event] = []
    closed: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        elsewhere = asyncio.Event()
        await conn.recv()
        conn.write(b"p" * ANSWERS * ANSWER)
        flush = asyncio.create_task(conn.flush())
        assert b"" == await conn.recv()  # the half-close, with the SEND in flight
        conn.close()
        waiting.append(elsewhere)
        closed.append(conn)
        await elsewhere.wait()
        await flush

    with serve(handler, **mode) as server:
        before = open_fds()
        for number in range(ROUNDS):
            with connect(server, rcvbuf=NARROW) as client:
                client.sendall(b"x")
                until(lambda: server.stats().sends > number, "the SEND")  # noqa: B023
                client.shutdown(socket.SHUT_WR)
                until(lambda: len(closed) == number + 1, "a closed connection")  # noqa: B023
                assert closed[number].unsent > 0, "nothing was parked"
                assert ANSWERS * ANSWER == len(read_to_end(client))
            wait_fds(before)
        assert ROUNDS == server.stats().closes_eof
        for event in waiting:
            server.reactors[0].post(event.set)
        assert 0 == server.stats().handler_faults


@pytest.mark.issue(244)
@pytest.mark.parametrize("mode", brief(MODES))
@pytest.mark.parametrize("send", SENDS)
def test_writes_after_a_half_close_leave_the_parked_send_alone(
    send: Changes, mode: Changes
) -> None:
    """The peer's FIN ends no flush; what is written after it follows what is on its way."""
    # The pieces after the half-close reach beyond what two sockets have taken of the first batch.
    first, rest = noise(SLAB - 1, seed=244), noise(14 * 700_001, seed=245)
    # Not bytes, which would be held: what slabs carry is to be seen.
    pieces = [bytearray(rest[at : at + 700_001]) for at in range(0, len(rest), 700_001)]
    parked: list[int] = []
    flushes: list[bool] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv(1)
        conn.write(bytearray(first))
        flush = asyncio.create_task(conn.flush())
        assert b"" == await conn.recv()  # the half-close, with the SEND in flight
        flushes.append(flush.done())
        for piece in pieces[:10]:
            conn.write(piece)
        parked.append(conn.unsent)
        await flush
        for piece in pieces[10:]:
            conn.write(piece)
            await conn.flush()
        flushes.append(flush.done())

    with (
        serve(handler, write_slab_size=SLAB, pool_max=4, **mode, **send) as server,
        connect(server, rcvbuf=NARROW) as client,
    ):
        client.sendall(b"x")
        until(lambda: server.stats().sends == 1, "the SEND")
        client.shutdown(socket.SHUT_WR)
        until(lambda: len(parked) == 1, "writes after the half-close")
        assert [SLAB - 1 + 7_000_010] == parked, "nothing was parked"
        got = read_to_end(client)
        assert len(first + rest) == len(got), "bytes were lost"
        assert Whole(first + rest) == Whole(got), "bytes were overwritten"
        assert bool(send) == (server.stats().sends_zc > 0)
        assert 0 == server.stats().handler_faults
    assert [False, True] == flushes, "the half-close ended the flush"
