# SPDX-License-Identifier: MIT
"""The counters as a whole (#101): complete, documented, looked at, and adding up."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import gc
import inspect
import re
import socket
import struct
from pathlib import Path

import pytest

import ioxide
from ioxide._common import counters as module
from tests.support import (
    Holder,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = pytest.mark.issue(101)

FIELDS = tuple(field.name for field in dataclasses.fields(ioxide.Counters))
TESTS = Path(__file__).parents[1]

# What the issue and those around it ask for, and what it is called here.
WANTED = {
    "recv -ENOBUFS starvations": ("recv_enobufs",),
    # A full queue pauses the receive and closes nothing.
    "recv-queue overflow closes": ("recv_pauses",),
    "CQ overflow": ("cq_overflow_events",),
    "accept sheds at the cap": ("accepts_shed",),
    "accepts": ("accepts",),
    "pool hits and misses": ("slab_hits", "slab_misses"),
    "CQEs per enter": ("enters", "cqes"),
    "guarded post faults": ("callback_faults",),
    "closes by cause": (
        "closes_eof",
        "closes_error",
        "closes_read_timeout",
        "closes_send_timeout",
        "closes_fault",
        "closes_abort",
        "closes_stop",
    ),
    "handler faults": ("handler_faults",),
    "ticker faults": ("ticker_faults",),
    # One timeout beside the enter is the reactor's only timer.
    "recv, accept, poll and timer re-arms": (
        "recv_rearms",
        "accept_rearms",
        "poll_rearms",
        "wake_cqes",
        "enters_timed",
    ),
    "starved now": ("starved_now",),
    "accept pauses": ("accept_pauses",),
    "wake writes, CQEs and wakes coalesced": ("wake_writes", "wake_cqes", "wakes_coalesced"),
    "sends": ("sends", "partial_sends", "sends_zc", "zc_notifs", "zc_copied"),
    "SQ-full flushes": ("sq_full_flushes",),
    "enter errors": ("enter_eintr", "enter_eagain", "enter_ebusy"),
    "stale CQEs": ("stale_cqes",),
    "draining sends now": ("draining_sends_now",),
    "timer ticks": ("timer_ticks",),
    "posts": ("posts",),
    "off-thread flushes and returns": ("foreign_flushes", "foreign_returns"),
    "connections now": ("connections_now",),
    "bytes in and out": ("bytes_received", "bytes_unread", "bytes_sent", "bytes_unsent"),
    "CQEs dropped": ("cqes_dropped",),
}

CAUSES = tuple(name for name in FIELDS if name.startswith("closes_"))


def closes(stats: ioxide.Counters) -> dict[str, int]:
    """The closes by cause, those that there were."""
    return {
        name.removeprefix("closes_"): getattr(stats, name)
        for name in CAUSES
        if getattr(stats, name)
    }


def _parsed(source: str) -> ast.Module:
    # Collected here, not within ast.parse(): a finalizer that logs a traceback parses as well, and
    # CPython allows for that from 3.11.8 and 3.12.2 on (gh-106905, "AST constructor recursion").
    gc.collect()
    return ast.parse(source)


@pytest.mark.parametrize("what", WANTED)
def test_no_counter_was_forgotten(what: str) -> None:
    """Each thing that is to be counted has its counters."""
    assert [] == [name for name in WANTED[what] if name not in FIELDS]
    assert set(WANTED["closes by cause"]) == set(CAUSES)


def test_every_counter_says_what_it_counts() -> None:
    """Each field is followed by its documentation."""
    body = _parsed(inspect.getsource(module)).body
    counters = next(part for part in body if isinstance(part, ast.ClassDef))
    after = dict(zip(counters.body, counters.body[1:], strict=False))
    documented = {
        part.target.id
        for part, following in after.items()
        if isinstance(part, ast.AnnAssign)
        and isinstance(part.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    assert set() == set(FIELDS) - documented


def test_every_counter_is_looked_at() -> None:
    """Each one is named by a test."""
    used: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path.name == Path(__file__).name:
            continue
        used |= set(re.findall(r"\w+", path.read_text()))
    own = _parsed(Path(__file__).read_text())
    used |= {node.attr for node in ast.walk(own) if isinstance(node, ast.Attribute)}
    assert set() == set(FIELDS) - used


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_mixed_run_adds_up() -> None:
    """Connections that end in every way there is: the causes add up to the closes, all else too."""

    async def handler(conn: ioxide.Connection) -> None:
        what = await conn.recv(1)
        if what == b"a":
            conn.abort()
        elif what == b"f":
            raise LookupError("on purpose")
        elif what == b"s":
            conn.write(b"s" * (8 << 20))
            await conn.flush()
        conn.write(what)
        await conn.recv()  # its end, a reset, or the read clock

    with (
        contextlib.ExitStack() as late,
        serve(handler, read_timeout_ms=1500, send_timeout_ms=1500, max_connections=4) as server,
    ):
        with connect(server) as client:
            client.sendall(b"e")
            assert b"e" == read_exactly(client, 1)
        with connect(server) as client:
            client.sendall(b"r")
            assert b"r" == read_exactly(client, 1)
            _reset(client)
        with connect(server) as client, contextlib.suppress(ConnectionResetError):
            client.sendall(b"a")
            read_to_end(client)
        with connect(server) as client:
            client.sendall(b"f")
            assert b"" == read_to_end(client)
        until(lambda: server.stats().closes == 4, "four ends, so that there is room again")
        with connect(server) as silent, connect(server, rcvbuf=4096) as client:
            silent.sendall(b"t")
            assert b"t" == read_exactly(silent, 1)
            answered = server.stats().bytes_sent
            client.sendall(b"s")
            until(lambda: server.stats().closes == 6, "the read clock and the send clock")
            assert server.stats().bytes_sent > answered + 4096, "no SEND took a part"
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                client = stack.enter_context(connect(server))
                client.sendall(b"e")
                assert b"e" == read_exactly(client, 1)
            assert b"" == read_to_end(stack.enter_context(connect(server)))
        until(lambda: server.stats().connections_now == 0, "an end of all")
        # Two that do not close when the server stops: they are left to the reactor's own end.
        for _ in range(2):
            client = late.enter_context(connect(server))
            client.sendall(b"e")
            assert b"e" == read_exactly(client, 1)
    stats = server.stats()
    expected = {
        "eof": 5,
        "error": 1,
        "read_timeout": 1,
        "send_timeout": 1,
        "fault": 1,
        "abort": 1,
        "stop": 2,
    }
    assert expected == closes(stats), "closes by cause"
    assert (
        stats.closes,
        stats.closes_error + stats.closes_fault,
        stats.closes_read_timeout,
        stats.closes_abort + stats.closes_stop,
    ) == (sum(expected.values()), 2, stats.read_timeouts, 3)
    assert stats.accepts == stats.closes + stats.connections_now
    assert (1, 1) == (stats.accepts_shed, stats.handler_faults)
    assert stats.aborts == sum(
        expected[cause] for cause in ("read_timeout", "send_timeout", "abort", "stop")
    )
    assert stats.wake_cqes <= stats.wake_writes
    assert stats.enters_timed <= stats.enters
    assert 0 < stats.wakeups <= stats.cqes
    assert (0, 0) == (stats.slab_bytes_now, stats.buffers_held_now)


def test_a_fault_stays_a_fault() -> None:
    """What happened first is the cause: a faulted handler's peer that then runs into a clock."""

    async def handler(_conn: ioxide.Connection) -> None:
        raise LookupError("on purpose")

    with serve(handler, read_timeout_ms=300) as server, connect(server) as client:
        assert b"" == read_to_end(client)  # and the client does not close
        until(lambda: server.stats().closes == 1, "the clock of the peer's FIN")
        assert 1 == server.stats().read_timeouts
        assert {"fault": 1} == closes(server.stats())


def test_receives_that_wait_for_a_buffer_are_told() -> None:
    """starved_now counts them while they wait; each is armed again, and counted so."""
    holder = Holder()
    with serve(holder, recv_slots=1) as server, connect(server) as one:
        one.sendall(b"keep")
        assert b"k" == read_exactly(one, 1)
        # Linux 6.1 asks for the next buffer before it looks for bytes: there `one` waits by now.
        waiting = server.stats().starved_now
        assert waiting <= 1
        with connect(server) as other:
            other.sendall(
                b"x"
            )  # on 6.18 its receive finds no buffer as soon as it is armed, not on 7.3
            until(lambda: server.stats().starved_now == waiting + 1, "a receive that waits")
            rearms = server.stats().recv_rearms
            on_reactor(server.reactors[0], lambda: holder.kept.pop().release())
            assert b"k" == read_exactly(other, 1)
            assert server.stats().recv_rearms > rearms
            until(lambda: server.stats().starved_now == 0, "nobody who waits")


def test_what_the_loop_itself_watches_is_counted() -> None:
    """poll_rearms counts the wake-ups by sockets that asyncio watches in the ring's place."""

    async def handler(conn: ioxide.Connection) -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            for number in range(3):
                received = asyncio.ensure_future(loop.sock_recv(near, 1))
                await asyncio.sleep(0.05)  # until it is watched
                far.send(b"%d" % number)
                conn.write(await received)

    with serve(handler) as server, connect(server) as client:
        assert b"012" == read_to_end(client)
        assert server.stats().poll_rearms >= 3
        assert server.stats().enters_timed >= 3


def test_a_full_submission_queue_is_counted() -> None:
    """Twelve answers of one tick, a queue of four: it is submitted early, and none is lost."""
    count = 12
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with (
        serve(handler, ring_entries=4, cq_entries=1024) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        until(lambda: len(conns) == count, "all connections")

        def answer_all() -> None:
            for conn in conns:
                conn.write(b"k")

        before = server.stats().sq_full_flushes
        on_reactor(server.reactors[0], answer_all)
        for client in clients:
            assert b"k" == read_exactly(client, 1)
        assert server.stats().sq_full_flushes >= before + 2
        assert 0 == server.stats().cqes_dropped
