# SPDX-License-Identifier: MIT
"""What threads other than the reactor's may do with a connection: write, flush, close, give back.

One queue holds all of it, so a thread's calls keep their order; one eventfd write wakes the reactor
for whatever is in it (#96); and nobody waits for ever, whatever becomes of the reactor.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ioxide
from ioxide._driver.driver import Driver
from ioxide._ring import _core
from tests.kernel_gated.modes import MODES, Changes
from tests.support import (
    SMALL,
    TIMEOUT,
    connect,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = pytest.mark.kernel_gated


class Parked:
    """A handler that offers its connection to other threads and stays until the peer ends."""

    def __init__(self) -> None:
        self.conns: list[ioxide.Connection] = []
        self.views: list[memoryview] = []

    async def __call__(self, conn: ioxide.Connection) -> None:
        self.conns.append(conn)
        async with conn.read() as slices:
            if slices:
                self.views.append(slices[0][:])  # kept: given back by another thread
        while await conn.recv():
            pass

    def wait(self, count: int) -> None:
        until(lambda: len(self.conns) == count, f"{count} connections")

    def one(self) -> ioxide.Connection:
        self.wait(1)
        return self.conns[0]


@contextlib.contextmanager
def held(reactor: ioxide.Reactor) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Keep the reactor busy meanwhile; what is given to the value runs there at the end."""
    busy, release = threading.Event(), threading.Event()
    last: list[Callable[[], object]] = []

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)
        for call in last:
            call()

    reactor.post(block)
    assert busy.wait(TIMEOUT)
    try:
        yield last.append
    finally:
        release.set()


def run_threads(count: int, call: Callable[[int], None]) -> None:
    """Run ``call(number)`` on `count` threads at once and raise what one of them raised."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(call, range(count)))


def eventfd_count(reactor: ioxide.Reactor) -> int:
    """What was written to the reactor's eventfd and not yet read (proc(5); hexadecimal)."""
    info = Path(f"/proc/self/fdinfo/{reactor.driver.wake_fd}").read_text()
    return int(next(line.split()[1] for line in info.splitlines() if "eventfd-count" in line), 16)


@pytest.mark.issue(96)
@pytest.mark.parametrize("changes", MODES)
def test_one_wake_for_all_queues(changes: Changes) -> None:
    """Four threads queue a hundred calls each, of six kinds: one eventfd write, and all happen."""
    handler = Parked()
    ran: list[str] = []
    with serve(handler, **changes) as server, contextlib.ExitStack() as stack:
        reactor = server.reactors[0]
        clients = [stack.enter_context(connect(server)) for _ in range(4)]
        for client in clients:
            client.sendall(b"keep")
        until(lambda: len(handler.views) == 4, "four lent buffers")
        conns, views = list(handler.conns), list(handler.views)
        handler.views.clear()
        futures: list[ioxide.Future[None]] = []
        before = server.stats()

        def queue(number: int) -> None:
            conn = conns[number]
            for index in range(24):
                reactor.post(ran.append, "post")
                reactor.loop.call_soon_threadsafe(ran.append, "call")
                conn.write_threadsafe(b"%03d" % index)
                futures.append(conn.flush_threadsafe())
            views[number].release()
            conn.write_threadsafe(b"end")
            futures.append(conn.flush_threadsafe())
            conn.close_threadsafe()

        with held(reactor):
            run_threads(4, queue)
            count = eventfd_count(reactor)
        for future in futures:
            assert future.result(TIMEOUT) is None
        until(lambda: len(ran) == 192, "all posts and calls")
        for client in clients:
            answer = b"".join(b"%03d" % index for index in range(24)) + b"end"
            assert answer == read_to_end(client)
        stats = server.stats()
        assert 0 == stats.slices_lent_now
        # `held` has posted itself, which may have been a write of its own.
        assert stats.wake_writes - before.wake_writes <= 2
    assert (100, 100, 4, 4, 0) == (
        stats.foreign_writes,
        stats.foreign_flushes,
        stats.foreign_closes,
        stats.foreign_returns,
        stats.foreign_drops,
    )
    assert 1 == count


@pytest.mark.parametrize("changes", MODES)
def test_the_calls_of_one_thread_keep_their_order(changes: Changes) -> None:
    """Each thread's writes arrive in its order, and its close comes after them."""
    handler = Parked()
    with serve(handler, **changes) as server, connect(server) as client:
        conn = handler.one()

        def write(number: int) -> None:
            for index in range(250):
                conn.write_threadsafe(b"%d%03d" % (number, index))

        with held(server.reactors[0]):
            run_threads(4, write)
            conn.close_threadsafe()
        received = read_to_end(client)
        assert 0 == server.stats().foreign_drops
    lines = [received[at : at + 4] for at in range(0, len(received), 4)]
    assert 1000 == len(lines)
    for number in range(4):
        own = [line for line in lines if line.startswith(b"%d" % number)]
        assert [b"%d%03d" % (number, index) for index in range(250)] == own


@pytest.mark.issue(96)
def test_no_wake_is_lost() -> None:
    """Four threads that each wait for every write of theirs never wait in vain; no timer runs."""
    handler = Parked()
    rounds = 200
    with serve(handler, read_timeout_ms=0, send_timeout_ms=0) as server:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(4)]
            handler.wait(4)

            def write(number: int) -> None:
                conn = handler.conns[number]
                for _ in range(rounds):
                    conn.write_threadsafe(b"x")
                    try:
                        conn.flush_threadsafe().result(TIMEOUT)
                    except TimeoutError:
                        raise AssertionError("a wake was lost: the flush never ended") from None

            run_threads(4, write)
            for client in clients:
                assert b"x" * rounds == read_exactly(client, rounds)
        stats = server.stats()
    assert 4 * rounds == stats.foreign_writes
    assert 4 * rounds == stats.foreign_flushes


@pytest.mark.parametrize("changes", MODES)
def test_a_flush_is_done_when_the_peer_has_taken_it(changes: Changes) -> None:
    """The future stays open while the peer's window is closed, and is done when it opens."""
    handler = Parked()
    body = b"b" * (8 << 20)  # more than two sockets hold
    with serve(handler, **changes) as server, connect(server, rcvbuf=4096) as client:
        conn = handler.one()
        conn.write_threadsafe(body)
        future = conn.flush_threadsafe()
        until(lambda: server.stats().sends >= 1, "the send")
        assert not future.done()
        assert conn.unsent > 0

        assert len(body) == len(read_exactly(client, len(body)))
        assert future.result(TIMEOUT) is None
        assert 0 == conn.unsent


def test_a_flush_can_be_awaited_on_another_loop() -> None:
    """A future of one reactor is awaited on a loop of another thread."""
    handler = Parked()
    with serve(handler) as server, connect(server) as client:
        conn = handler.one()

        async def elsewhere() -> None:
            conn.write_threadsafe(b"hello")
            await asyncio.wait_for(conn.flush_threadsafe(), TIMEOUT)

        asyncio.run(elsewhere())
        assert b"hello" == read_exactly(client, 5)


def test_queued_bytes_count_towards_the_limit() -> None:
    """While the reactor is busy write_threadsafe() queues up to write_limit and no further."""
    handler = Parked()
    with serve(handler, write_limit=65536) as server, connect(server) as client:
        conn = handler.one()
        with held(server.reactors[0]):
            for _ in range(64):
                conn.write_threadsafe(b"l" * 1024)
            assert 65536 == conn.unsent
            with pytest.raises(BufferError, match="65536 wait to be sent and write_limit is 65536"):
                conn.write_threadsafe(b"one")
        assert b"l" * 65536 == read_exactly(client, 65536)
        assert conn.flush_threadsafe().result(TIMEOUT) is None
        conn.write_threadsafe(b"two")
        assert b"two" == read_exactly(client, 3)


def test_a_write_comes_before_the_end_that_follows_it() -> None:
    """What a thread wrote before the reactor's close is sent; before its abort, it is told."""
    handler = Parked()
    with serve(handler) as server, connect(server) as first, connect(server):
        handler.wait(2)
        closed, aborted = handler.conns
        futures: list[ioxide.Future[None]] = []
        with held(server.reactors[0]) as at_the_end:
            for conn in (closed, aborted):
                conn.write_threadsafe(b"late")
                futures.append(conn.flush_threadsafe())
            at_the_end(closed.close)
            at_the_end(aborted.abort)
        assert b"late" == read_to_end(first)
        futures[0].result(TIMEOUT)
        with pytest.raises(ConnectionAbortedError, match="abort"):
            futures[1].result(TIMEOUT)
        stats = server.stats()
        assert (0, 4) == (stats.foreign_drops, stats.bytes_unsent)
        with pytest.raises(BrokenPipeError):
            closed.write_threadsafe(b"later")
        with pytest.raises(ConnectionAbortedError):
            aborted.write_threadsafe(b"later")


def test_a_write_to_what_has_ended_is_dropped_and_told() -> None:
    """A write whose connection ends before it is taken is dropped, counted, and its flush raises.

    The end is the reactor's own here: a handler that cannot be started.
    """
    told: list[str] = []

    def settle(waiter: _core.Waiter) -> None:
        try:
            conns[0]._flushed(waiter)
        except OSError as error:
            told.append(type(error).__name__)
        else:
            told.append("sent")

    def start(conn: ioxide.Connection) -> None:
        conns.append(conn)
        conn.write_threadsafe(b"late")
        conn._flush_threadsafe(settle)
        raise ValueError("not today")

    conns: list[ioxide.Connection] = []
    faults: list[BaseException] = []
    driver = Driver(SMALL)
    driver.attach(
        loop=None,
        poll_fd=-1,
        on_connection=start,
        on_fault=lambda _, error: faults.append(error),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        driver.listen(listener.fileno())
        driver.wait(0)
        with socket.create_connection(listener.getsockname(), timeout=TIMEOUT):
            while not told:
                driver.wait(TIMEOUT)
                driver.dispatch()
            counters = driver.counters()
        driver.close()
    assert ["ConnectionAbortedError"] == told
    assert [ValueError] == [type(error) for error in faults]
    assert (1, 4, 0) == (counters.foreign_drops, counters.bytes_unsent, conns[0].unsent)


def test_a_flush_with_nothing_left_succeeds_after_the_end() -> None:
    """What was taken stays taken: its flush succeeds although the connection has ended since."""
    handler = Parked()
    with serve(handler) as server:
        with connect(server) as client:
            conn = handler.one()
            conn.write_threadsafe(b"all")
            assert b"all" == read_exactly(client, 3)
        until(lambda: server.stats().closes == 1, "the end")
        assert conn.flush_threadsafe().result(TIMEOUT) is None
    assert conn.flush_threadsafe().result(0) is None


def test_a_cancelled_flush_harms_nobody() -> None:
    """A future cancelled before its flush ends is left alone by the reactor."""
    handler = Parked()
    with serve(handler) as server, connect(server) as client:
        conn = handler.one()
        with held(server.reactors[0]):
            conn.write_threadsafe(b"one")
            future = conn.flush_threadsafe()
            assert future.cancel()
            conn.write_threadsafe(b"two")
            second = conn.flush_threadsafe()
        assert b"onetwo" == read_exactly(client, 6)
        assert second.result(TIMEOUT) is None
        assert future.cancelled()
        assert 0 == server.stats().callback_faults


def test_a_stop_ends_every_flush() -> None:
    """Flushes that the peer holds up end with the reactor, with an error that says so."""
    handler = Parked()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(handler, stop_timeout_ms=100))
        stack.enter_context(connect(server, rcvbuf=4096))
        conn = handler.one()
        conn.write_threadsafe(b"b" * (8 << 20))
        futures = [conn.flush_threadsafe() for _ in range(3)]
        server.stop()
        for future in futures:
            assert future.done(), "the stop left a flush pending"
            with pytest.raises(ConnectionAbortedError, match="the reactor was stopped"):
                future.result(0)

        with pytest.raises(ConnectionAbortedError, match="the reactor was stopped"):
            conn.write_threadsafe(b"late")
        with pytest.raises(ConnectionAbortedError, match="the reactor was stopped"):
            conn.flush_threadsafe().result(0)
        conn.close_threadsafe()  # has nothing to do


def test_a_stop_that_races_leaves_nobody_waiting() -> None:
    """Threads that write and flush while the server stops all end, each flush with an outcome."""
    outcomes = {"sent": 0, "failed": 0, "refused": 0}
    for _ in range(10):
        handler = Parked()
        futures: list[ioxide.Future[None]] = []
        going = threading.Barrier(5)

        def produce(
            number: int,
            handler: Parked = handler,
            futures: list[ioxide.Future[None]] = futures,
            going: threading.Barrier = going,
        ) -> None:
            conn = handler.conns[number % 2]
            going.wait(TIMEOUT)
            try:
                while True:
                    own = []
                    for _ in range(8):
                        conn.write_threadsafe(b"x" * 512)
                        own.append(conn.flush_threadsafe())
                    futures.extend(own)
                    own[-1].exception(TIMEOUT)  # or they would outrun the stop
            except OSError:
                outcomes["refused"] += 1

        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serve(handler, stop_timeout_ms=20))
            for _ in range(2):
                stack.enter_context(connect(server))
            handler.wait(2)
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(4))
            producers = [pool.submit(produce, number) for number in range(4)]
            going.wait(TIMEOUT)
            server.stop()
            for producer in producers:
                producer.result(TIMEOUT)
        for future in futures:
            assert future.done(), "the stop left a flush pending"
            outcomes["sent" if future.exception(0) is None else "failed"] += 1
    assert 40 == outcomes["refused"]
    assert outcomes["sent"] > 0


def test_plain_calls_stay_on_the_reactor() -> None:
    """write() on another thread raises and names the way out; the threadsafe call works there."""
    handler = Parked()
    with serve(handler) as server, connect(server) as client:
        conn = handler.one()
        calls: list[Callable[[], None]] = [lambda: conn.write(b"x"), conn.close, conn.abort]
        for call in calls:
            with pytest.raises(RuntimeError, match="belongs to ioxide-reactor-0"):
                call()
        conn.write_threadsafe(bytearray(b"x"))
        on_reactor(server.reactors[0], lambda: conn.write_threadsafe(memoryview(b"y")))
        assert b"xy" == read_exactly(client, 2)
        with pytest.raises(TypeError):
            conn.write_threadsafe("text")  # type: ignore[arg-type]
