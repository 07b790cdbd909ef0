# SPDX-License-Identifier: MIT
"""The four continuation modes: the same handlers, the same promises, and each takes its own path.

In the pool modes a handler lives on a worker's loop, so "comes home" means: to that worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.support import (
    TIMEOUT,
    CutError,
    connect,
    echo,
    on_reactor,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_fds,
)

pytestmark = pytest.mark.issue(104)

MODES = [pytest.param(mode, id=mode.value) for mode in ContinuationMode]
POOLS = [pytest.param(mode, id=mode.value) for mode in ContinuationMode if mode.pooled]

MIB = 1 << 20


def exchange(server: ioxide.Server, connections: int, rounds: int) -> None:
    """Several clients at once send `rounds` numbered requests each and check each answer."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(connections)]
        for round_number in range(rounds):
            for number, client in enumerate(clients):
                client.sendall(b"%04d%06d" % (number, round_number))
            for number, client in enumerate(clients):
                assert b"%04d%06d" % (number, round_number) == read_exactly(client, 10)


def balanced(server: ioxide.Server) -> ioxide.Counters:
    """The counters when every connection has ended; what has to agree with what agrees."""
    until(lambda: server.stats().connections_now == 0, "the end of every connection")
    stats = server.stats()
    assert stats.accepts == stats.closes
    assert stats.bytes_received == stats.bytes_sent
    assert 0 == stats.buffers_held_now
    assert 0 == stats.handler_faults
    assert 0 == stats.foreign_drops
    assert 0 == stats.stale_cqes
    return stats


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_takes_its_own_path(mode: ContinuationMode) -> None:
    """The counters tell the modes apart: posts, hand-overs, foreign calls, and none of them."""
    threads: set[str] = set()

    async def handler(conn: ioxide.Connection) -> None:
        threads.add(threading.current_thread().name)
        while data := await conn.recv():
            threads.add(threading.current_thread().name)
            conn.write(data)
            await conn.flush()
            threads.add(threading.current_thread().name)

    with serve(handler, continuation_mode=mode, pool_threads=2) as server:
        exchange(server, connections=8, rounds=50)
        stats = balanced(server)
        assert 8 * 50 * 10 == stats.bytes_sent
        assert stats.wakeups >= 8 * 50

        on_reactors_own = {server.reactors[0].name}
        if not mode.pooled:
            assert on_reactors_own == threads
            assert 0 == stats.handoffs == stats.foreign_writes == stats.wake_writes
            assert (stats.wakeups if mode is ContinuationMode.POSTED else 0) == stats.posts
            return
        assert {f"{server.reactors[0].name}-worker-{n}" for n in range(2)} == threads
        assert 0 == stats.posts
        assert 400 == stats.foreign_writes == stats.foreign_returns
        assert 8 <= stats.handoffs <= stats.wakeups + 8
        if mode is ContinuationMode.POOL:
            # Each write, return and close a wake of its own.
            assert stats.wake_writes >= 400 + 400 + 8


def test_inline_makes_no_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default mode a request goes through none of asyncio's queues, and no post."""
    scheduled: list[object] = []

    with serve(echo) as server, connect(server) as client:
        loop = server.reactors[0].loop
        client.sendall(b"first")  # the handler's task has begun, and is parked
        assert b"first" == read_exactly(client, 5)
        call_soon = loop.call_soon

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            scheduled.append(args[0])
            return call_soon(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon", counted)
        before = server.stats()
        for _ in range(100):
            client.sendall(b"again")
            assert b"again" == read_exactly(client, 5)
        after = server.stats()
        monkeypatch.undo()
        assert after.wakeups - before.wakeups >= 100
        assert 0 == after.posts - before.posts
        assert [] == scheduled


@pytest.mark.parametrize("mode", MODES)
def test_bodies_arrive_whole(mode: ContinuationMode) -> None:
    """Two MiB each way on four connections at once: every byte, in order."""
    bodies = [random.Random(number).randbytes(2 * MIB) for number in range(4)]
    received: dict[int, str] = {}

    def run(server: ioxide.Server, number: int) -> None:
        with connect(server) as client:

            def send() -> None:
                client.sendall(bodies[number])
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received[number] = hashlib.sha256(read_to_end(client)).hexdigest()
            sender.join()

    with serve(echo, continuation_mode=mode, pool_threads=2) as server:
        threads = [threading.Thread(target=run, args=(server, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 8 * MIB == balanced(server).bytes_sent
    assert {n: hashlib.sha256(bodies[n]).hexdigest() for n in range(4)} == received


@pytest.mark.parametrize("context", [True, False], ids=["context", "no-context"])
@pytest.mark.parametrize("mode", MODES)
def test_many_requests_on_many_connections(mode: ContinuationMode, context: bool) -> None:
    """64 connections with 20 requests each get the right answers, and the counters agree."""
    # Linux 6.1 takes a buffer before it looks for bytes: one for each connection is not enough.
    with serve(echo, continuation_mode=mode, context=context, recv_slots=256) as server:
        exchange(server, connections=64, rounds=20)
        stats = balanced(server)
    assert 64 == stats.accepts
    assert 64 * 20 * 10 == stats.bytes_received
    assert 0 == stats.recv_enobufs


@pytest.mark.slow
@pytest.mark.parametrize("context", [True, False], ids=["context", "no-context"])
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_requests_each(mode: ContinuationMode, context: bool) -> None:
    """64 connections with 10,000 requests each get the right answers, and the counters agree."""
    # Linux 6.1 takes a buffer before it looks for bytes: one for each connection is not enough.
    with serve(echo, continuation_mode=mode, context=context, recv_slots=256) as server:
        exchange(server, connections=64, rounds=10_000)
        stats = balanced(server)
    assert 64 == stats.accepts
    assert 64 * 10_000 * 10 == stats.bytes_received
    assert 0 == stats.recv_enobufs
    if mode.pooled:
        assert 640_000 == stats.foreign_writes


@pytest.mark.parametrize("mode", MODES)
def test_awaits_come_home(mode: ContinuationMode) -> None:
    """After sleeping, pool work and gathered tasks a handler is on the thread it began on."""
    seen: list[tuple[str, str]] = []

    async def handler(conn: ioxide.Connection) -> None:
        home = threading.current_thread().name
        await asyncio.sleep(0.001)
        seen.append((home, threading.current_thread().name))
        elsewhere = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert elsewhere != home
        seen.append((home, threading.current_thread().name))
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
        seen.append((home, threading.current_thread().name))
        conn.write(await conn.recv())

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_to_end(client)
        name = server.reactors[0].name
        assert 0 == server.stats().handler_faults
    assert 3 == len(seen)
    for home, now in seen:
        assert home == now
        assert mode.pooled == home.startswith(f"{name}-worker-")


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_read_loses_nothing(mode: ContinuationMode) -> None:
    """Reads that time out again and again leave every byte to the next one."""
    timeouts: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        while True:
            try:
                data = await asyncio.wait_for(conn.recv(), 0.001)
            except TimeoutError:
                timeouts.append(1)
                continue
            if not data:
                return
            conn.write(data)

    sent = random.Random(7).randbytes(100 * 50)
    with serve(handler, continuation_mode=mode, pool_threads=1) as server:
        with connect(server) as client:
            for at in range(0, len(sent), 50):
                client.sendall(sent[at : at + 50])
                if at % 500 == 0:
                    count = len(timeouts)
                    until(lambda count=count: len(timeouts) > count, "a timeout")  # type: ignore[misc]
            client.shutdown(socket.SHUT_WR)
            assert sent == read_to_end(client)
        assert len(sent) == balanced(server).bytes_sent
    assert len(timeouts) >= 10


@pytest.mark.parametrize("mode", MODES)
def test_half_close_ends_reads_only(mode: ContinuationMode) -> None:
    """A peer that has ended its side still gets the answer."""

    async def handler(conn: ioxide.Connection) -> None:
        body = b""
        while data := await conn.recv():
            body += data
        conn.write(b"got " + body)
        await conn.flush()
        conn.write(b", really")

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert b"got request, really" == read_to_end(client)


@pytest.mark.parametrize("mode", MODES)
def test_a_handler_closes_and_writes_to_other_connections(mode: ContinuationMode) -> None:
    """Handlers of one reactor may use each other's connections, on whatever worker they live."""
    others: list[ioxide.Connection] = []
    ended: list[bytes] = []

    async def handler(conn: ioxide.Connection) -> None:
        request = await conn.recv()
        if request == b"wait":
            others.append(conn)
            conn.write(b"ok")
            ended.append(await conn.recv())
            return
        for other in others:
            other.write(b"bye")
            other.close()
            assert other.closed
            with pytest.raises(BrokenPipeError):
                other.write(b"more")
        conn.write(b"done")

    with serve(handler, continuation_mode=mode, pool_threads=2) as server:
        with connect(server) as one, connect(server) as two, connect(server) as three:
            for client in (one, two):
                client.sendall(b"wait")
                assert b"ok" == read_exactly(client, 2)
            three.sendall(b"go")
            assert b"done" == read_to_end(three)
            assert b"bye" == read_to_end(one)
            assert b"bye" == read_to_end(two)
        until(lambda: len(ended) == 2, "both readers")
        assert 0 == server.stats().handler_faults
    assert [b"", b""] == ended


@pytest.mark.parametrize("mode", MODES)
def test_aborted_and_ended_connections_say_so(mode: ContinuationMode) -> None:
    """abort() resets; afterwards the connection says that it is closed and has no peer."""
    seen: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        seen.append(conn.peername)
        conn.abort()
        with pytest.raises(OSError):
            conn.write(b"x")
        seen.append(conn.closed)

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        address = client.getsockname()
        client.sendall(b"x")
        with pytest.raises(CutError):
            read_to_end(client)
        until(lambda: server.stats().closes == 1, "the end")
        until(lambda: len(seen) == 2, "the handler's end")
        assert 1 == server.stats().aborts
        assert 0 == server.stats().handler_faults
    assert [address, True] == seen


@pytest.mark.parametrize("mode", MODES)
def test_slices_go_back(mode: ContinuationMode) -> None:
    """Lent buffers come back, also from a handler that raises: two of them serve 50 requests."""

    async def handler(conn: ioxide.Connection) -> None:
        while True:
            async with conn.read() as slices:
                if not slices:
                    return
                for part in slices:
                    conn.write(part)
                if bytes(slices[0]).startswith(b"raise"):
                    raise LookupError("on purpose")

    with serve(handler, continuation_mode=mode, recv_slots=2) as server:
        with connect(server) as client:
            for number in range(50):
                client.sendall(b"%05d" % number)
                assert b"%05d" % number == read_exactly(client, 5)
            client.sendall(b"raise")
            assert b"raise" == read_to_end(client)
        until(lambda: server.stats().slices_lent_now == 0, "the lent buffers")
        until(lambda: server.stats().buffers_held_now == 0, "the held buffers")
        assert 1 == server.stats().handler_faults


@pytest.mark.parametrize("mode", MODES)
def test_a_full_queue_pauses_and_goes_on(mode: ContinuationMode) -> None:
    """A handler that does not read pauses the receive; when it reads, every byte is there."""
    sent = random.Random(97).randbytes(200_000)
    release = threading.Event()
    digests: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        await asyncio.to_thread(release.wait, TIMEOUT)
        body = bytearray()
        while data := await conn.recv():
            body += data
        digests.append(hashlib.sha256(body).hexdigest())
        conn.write(b"whole")

    with (
        serve(
            handler,
            continuation_mode=mode,
            recv_queue_entries=4,
            recv_slots=256,
            recv_buffer_size=512,
        ) as server,
        connect(server) as client,
    ):

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: server.stats().recv_pauses >= 1, "a paused receive")
        release.set()
        assert b"whole" == read_to_end(client)
        sender.join()
    assert [hashlib.sha256(sent).hexdigest()] == digests


@pytest.mark.parametrize("mode", MODES)
def test_the_read_clock_runs(mode: ContinuationMode) -> None:
    """A peer that sends nothing is cut off by the read clock, wherever its handler waits."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        await asyncio.sleep(0.05)  # by now the reactor sleeps, for ever as far as it knows
        try:
            await conn.recv()
        except ConnectionAbortedError as error:
            errors.append(str(error))

    with serve(handler, continuation_mode=mode, read_timeout_ms=200) as server:
        with connect(server) as client, pytest.raises(CutError):
            read_to_end(client)
        until(lambda: len(errors) == 1, "the handler's error")
        assert 1 == server.stats().read_timeouts
    assert "read_timeout_ms" in errors[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_reader_is_waited_for(mode: ContinuationMode) -> None:
    """flush() ends when the peer has taken the bytes, not before."""
    flushed = threading.Event()
    body = b"f" * (8 * MIB)

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(body)
        await conn.flush()
        assert 0 == conn.unsent
        flushed.set()

    with serve(handler, continuation_mode=mode) as server, connect(server, rcvbuf=4096) as client:
        until(lambda: server.stats().sends >= 1, "the send")
        assert not flushed.wait(0.1)
        assert len(body) == len(read_to_end(client))
        assert flushed.wait(TIMEOUT)
        assert 0 == server.stats().handler_faults


@pytest.mark.parametrize("mode", MODES)
def test_handler_faults_are_counted(mode: ContinuationMode) -> None:
    """A handler that raises is counted, its peer sees the end, and the next one is served."""

    async def handler(conn: ioxide.Connection) -> None:
        data = await conn.recv()
        if data == b"bad":
            raise LookupError("on purpose")
        conn.write(data)

    with serve(handler, continuation_mode=mode) as server:
        for _ in range(5):
            with connect(server) as client:
                client.sendall(b"bad")
                assert b"" == read_to_end(client)
        with connect(server) as client:
            client.sendall(b"good")
            assert b"good" == read_to_end(client)
        until(lambda: server.stats().connections_now == 0, "the ends")
        assert 5 == server.stats().handler_faults


@pytest.mark.parametrize("mode", MODES)
def test_stop_ends_everything(mode: ContinuationMode, caplog: pytest.LogCaptureFixture) -> None:
    """A stop lets handlers finish, cancels who does not, and leaves neither thread nor fd."""
    before, threads = open_fds(), threading.active_count()
    ended: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        request = await conn.recv()
        if request == b"stay":
            conn.write(b"k")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
        elif request:
            await asyncio.sleep(0.1)
            conn.write(b"answer to " + request)
            await conn.flush()

    with caplog.at_level(logging.WARNING):
        with (
            serve(handler, continuation_mode=mode, stop_timeout_ms=1000) as server,
            connect(server) as silent,
            connect(server) as asking,
            connect(server) as staying,
        ):
            staying.sendall(b"stay")
            assert b"k" == read_exactly(staying, 1)
            asking.sendall(b"question")
            until(lambda: server.stats().bytes_received == 12, "the question")
            server.stop()
            assert b"answer to question" == read_to_end(asking)
            assert b"" == read_to_end(silent)
        stats = server.stats()
    assert ["cancelled"] == ended
    assert "1 handlers did not end within stop_timeout_ms=1000" in caplog.text
    assert (3, 3, 0, 0) == (
        stats.accepts,
        stats.closes,
        stats.connections_now,
        stats.handler_faults,
    )
    wait_fds(before)
    until(lambda: threading.active_count() <= threads, "the end of every thread")


@pytest.mark.parametrize("mode", MODES)
def test_stops_that_race_leave_nothing(mode: ContinuationMode) -> None:
    """Ten stops in the middle of traffic: every server ends, and so do its threads."""
    before, threads = open_fds(), threading.active_count()
    answers = 0
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serve(echo, continuation_mode=mode, pool_threads=2))
            clients = [stack.enter_context(connect(server)) for _ in range(8)]
            for client in clients[:4]:
                client.sendall(b"x")
                answers += len(read_exactly(client, 1))
            for client in clients:
                client.sendall(b"y")
            server.stop()
            stats = server.stats()
            assert stats.accepts == stats.closes
            assert 0 == stats.handler_faults
    assert 40 == answers
    wait_fds(before)
    until(lambda: threading.active_count() <= threads, "the end of every thread")


@pytest.mark.parametrize("mode", POOLS)
def test_a_system_exit_on_a_worker_ends_the_reactor(mode: ContinuationMode) -> None:
    """As in the other modes SystemExit raised by a handler ends its reactor, which says so."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        raise SystemExit(3)

    server = ioxide.Server(handler, ioxide.ServerConfig(port=0, continuation_mode=mode))
    server.start()
    with connect(server) as client:
        client.sendall(b"x")
        with contextlib.suppress(CutError):
            read_to_end(client)
    until(lambda: not server.reactors[0].is_alive, "the end of the reactor")
    with pytest.raises(ioxide.ReactorError, match="SystemExit"):
        server.stop()


def _eventfd_count(reactor: ioxide.Reactor) -> int:
    info = Path(f"/proc/self/fdinfo/{reactor.driver.wake_fd}").read_text()
    return int(next(line.split()[1] for line in info.splitlines() if "eventfd-count" in line), 16)


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [
        pytest.param(ContinuationMode.POOL, 100, 101, id="pool"),
        pytest.param(ContinuationMode.POOL_COALESCED, 1, 1, id="pool_coalesced"),
    ],
)
def test_the_pools_differ_in_their_wakes(mode: ContinuationMode, low: int, high: int) -> None:
    """A hundred writes of a worker while the reactor is busy: a hundred eventfd writes, or one."""
    asked, go, wrote = threading.Event(), threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        asked.set()
        assert go.wait(TIMEOUT)  # holds this worker
        for _ in range(100):
            conn.write(b"w")
        wrote.set()

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        assert asked.wait(TIMEOUT)
        reactor = server.reactors[0]
        # What the reactor was told of so far has been read by now, but for a return of this tick.
        on_reactor(reactor, lambda: None)
        counts: list[int] = []

        def hold() -> None:
            go.set()
            assert wrote.wait(TIMEOUT)
            counts.append(_eventfd_count(reactor))

        on_reactor(reactor, hold)
        assert b"w" * 100 == read_to_end(client)
    assert low <= counts[0] <= high, f"{counts[0]} eventfd writes for a hundred calls"


@pytest.mark.parametrize("mode", POOLS)
def test_one_hand_over_for_a_whole_batch(mode: ContinuationMode) -> None:
    """However many tasks of a worker can go on meanwhile, its loop is called once."""
    held, release = threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            if data == b"hold":
                held.set()
                assert release.wait(TIMEOUT)
            conn.write(data)

    with (
        serve(handler, continuation_mode=mode, pool_threads=1) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(17)]
        for client in clients:
            client.sendall(b"up")
            assert b"up" == read_exactly(client, 2)
        clients[0].sendall(b"hold")
        assert held.wait(TIMEOUT)
        before = server.stats()
        for half in (clients[1:9], clients[9:]):
            received = server.stats().bytes_received
            for client in half:
                client.sendall(b"go")
            until(lambda r=received: server.stats().bytes_received == r + 16, "the requests")  # type: ignore[misc]
        on_reactor(server.reactors[0], lambda: None)  # and another tick
        handoffs = server.stats().handoffs - before.handoffs
        release.set()
        assert b"hold" == read_exactly(clients[0], 4)
        for client in clients[1:]:
            assert b"go" == read_exactly(client, 2)
    assert 1 == handoffs
