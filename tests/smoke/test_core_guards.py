# SPDX-License-Identifier: MIT
"""What would unbalance the C core if it were let in: nested ticks, wrong threads, other processes.

Each of these ended in a crash, or in damage to somebody else's connection, before it was refused.
"""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ioxide._driver.driver import Driver
from ioxide._ring import _core
from tests.support import SMALL, TIMEOUT

ROOT = Path(__file__).parents[2]


class Bench:
    """A driver without a loop, ticked by hand."""

    def __init__(self) -> None:
        self.driver = Driver(SMALL)
        self.started: list[Any] = []
        self.faults: list[tuple[str, BaseException]] = []
        self.driver.attach(
            loop=None,
            poll_fd=-1,
            on_connection=self.started.append,
            on_fault=lambda message, error: self.faults.append((message, error)),
        )
        self._stack = contextlib.ExitStack()
        self._listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.driver.listen(self._listener.fileno())
        self.driver.wait(0)

    def tick(self) -> None:
        self.driver.wait(TIMEOUT)
        self.driver.dispatch()

    def connection(self) -> Any:
        """A connection whose receive is armed; the bench keeps no reference."""
        client = socket.create_connection(self._listener.getsockname(), timeout=TIMEOUT)
        self._stack.enter_context(client)
        while not self.started:
            self.tick()
        self.driver.wait(0)  # submits the receive
        return self.started.pop()

    def close(self) -> None:
        self._stack.close()
        self.driver.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()
    assert [] == made.faults


@pytest.mark.parametrize("inner", ["wait", "dispatch", "close"])
@pytest.mark.parametrize("outer", ["wait", "dispatch", "close"])
def test_a_tick_does_not_nest(bench: Bench, outer: str, inner: str) -> None:
    """A finalizer that the end of a connection runs inside a tick cannot begin another one."""
    driver, told = bench.driver, []
    calls: dict[str, Callable[[], object]] = {
        "wait": lambda: driver.wait(0),
        "dispatch": driver.dispatch,
        "close": driver._core.close,
    }

    def gone(_: object) -> None:
        try:
            told.append(f"returned {calls[inner]()}")
        except RuntimeError as error:
            told.append(str(error))

    conn = bench.connection()
    seen = weakref.ref(conn, gone)
    if outer == "wait":
        # The last reference is that of a call queued by another thread, which wait() drops.
        conn.abort()
        while driver.counters().connections_now:
            bench.tick()
        conn._flush_threadsafe(lambda _: None)
        del conn
        driver.wait(0)
    elif outer == "dispatch":
        conn.abort()
        del conn
        while not told:
            bench.tick()
    else:
        del conn
        driver.close()
    assert seen() is None
    # What ends with the driver is let go of when nothing can be begun any more.
    inside = f"{inner}() was called from inside {outer}()"
    assert [inside if outer != "close" else "this driver is closed"] == told


class Home:
    """A worker's loop as far as the core is concerned; what it is to call waits in `calls`."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.interrupts = 0

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        self.calls.append(call)

    call_soon = call_soon_threadsafe


@pytest.mark.parametrize("what", ["run_ready", "detach"])
def test_a_worker_may_go_on_or_end_inside_run_ready(bench: Bench, what: str) -> None:
    """What a worker was handed is started once each, whatever the first of them does."""
    home = Home()
    started: list[Any] = []

    def start(conn: Any) -> None:
        started.append(conn)
        if len(started) == 1:
            getattr(worker, what)()

    worker = _core.Worker(bench.driver._core, home, start)
    try:
        both = [bench.connection(), bench.connection()]
        for conn in both:
            assert worker.start(conn)
        bench.driver.wait(0)  # tells the worker, once
        (run_ready,) = home.calls
        run_ready()
        assert (both if what == "run_ready" else both[:1]) == started
    finally:
        if what == "run_ready":
            worker.detach()
    # What was not started is closed instead.
    bench.driver.wait(0)
    assert [False, what == "detach"] == [conn.closed for conn in both]


def test_an_interrupted_hand_over_is_made_up_for(bench: Bench) -> None:
    """A KeyboardInterrupt while a worker is told leaves wait(), and the next wait() tells it."""
    home = Home()
    started: list[Any] = []
    worker = _core.Worker(bench.driver._core, home, started.append)
    try:
        conn = bench.connection()
        home.interrupts = 1
        assert worker.start(conn)
        with pytest.raises(KeyboardInterrupt):
            bench.driver.wait(0)
        assert [] == home.calls
        bench.driver.wait(0)
        (run_ready,) = home.calls
        run_ready()
        assert [conn] == started
    finally:
        worker.detach()


def test_a_transport_is_refused_to_a_worker(bench: Bench) -> None:
    """What a transport asks of its connection goes to the ring at once: not from a worker."""
    conn = bench.connection()
    told: list[object] = []

    def work() -> None:
        worker = _core.Worker(bench.driver._core, Home(), told.append)
        try:
            conn.write(b"queued")  # this is the worker's to do, and is handed over
            for call in (
                lambda: conn._read(False),
                lambda: conn._put(b"x"),
                lambda: conn._watch(0),
                conn._drop,
                conn._end_writes,
                conn._end_reads,
            ):
                try:
                    call()
                    told.append("returned")
                except RuntimeError as error:
                    told.append(str(error))
        finally:
            worker.detach()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(TIMEOUT)
    refused = (
        "this is done on the reactor's thread alone, not on a worker's: "
        "hand it over with Reactor.post()"
    )
    assert 6 * [refused] == told


def test_a_connection_adopted_while_another_is(bench: Bench) -> None:
    """A finalizer that takes a connection over while the core makes one gets a place of its own.

    Until 3.11 the collector runs inside the allocation; later, when the call has returned.
    """
    driver = bench.driver
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))

        def connected() -> int:
            client = socket.create_connection(listener.getsockname(), timeout=TIMEOUT)
            client.setblocking(True)
            return client.detach()  # the driver's, which closes it

        table = 64  # the first one's size: all but one place is taken
        fds = [connected() for _ in range(table + 1)]
        kept = [driver.adopt(fd, False) for fd in fds[: table - 1]]
        nested: list[Any] = []

        def collected(phase: str, _: object) -> None:
            if phase == "start" and not nested:
                nested.append(driver.adopt(fds[-1], False))

        threshold = gc.get_threshold()
        gc.collect()
        gc.callbacks.append(collected)
        try:
            gc.set_threshold(1)
            outer = driver.adopt(fds[-2], False)
            gc.collect()
        finally:
            gc.callbacks.remove(collected)
            gc.set_threshold(*threshold)
        assert [*fds[:-2], fds[-2], fds[-1]] == [c._fd for c in (*kept, outer, *nested)]
        assert table + 1 == len(driver.connections())
        driver.close()


def _ended(thread: threading.Thread) -> None:
    """Wait for the end of a thread in the kernel: its stack is free then, later than join()."""
    task = Path(f"/proc/self/task/{thread.native_id}")
    thread.join(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while task.exists():
        assert time.monotonic() < deadline, f"thread {thread.native_id} has not ended"
        time.sleep(0.001)


def test_the_next_thread_of_that_ident_is_another() -> None:
    """A thread does not own the ring of one that has ended, though it was given its ident.

    The ident is the address of the thread's stack. glibc gives a new thread one of the stacks that
    are free. Threads that were given another one are kept until the end, so that each new one is
    given a stack that none has had yet.
    """
    left: list[Driver] = []
    told: list[str] = []
    answered = threading.Semaphore(0)
    found = threading.Event()
    maker = threading.Thread(target=lambda: left.append(Driver(SMALL)))
    maker.start()
    _ended(maker)
    ident = maker.ident

    def work() -> None:
        if threading.get_ident() != ident:
            answered.release()
            found.wait(TIMEOUT)
            return
        try:
            told.append(f"returned {left[0].wait(0)}")
        except (RuntimeError, OSError) as error:
            told.append(str(error))
        answered.release()

    threads: list[threading.Thread] = []
    try:
        while not told and len(threads) < 100:
            threads.append(threading.Thread(target=work))
            threads[-1].start()
            assert answered.acquire(timeout=TIMEOUT)
    finally:
        found.set()
        for thread in threads:
            _ended(thread)
    with pytest.warns(ResourceWarning, match="a driver was dropped without close"):
        left.clear()
    assert told, f"none of {len(threads)} threads was given the ident of the one that had ended"
    (refusal,) = told
    assert f"a ring is used on the thread that made it ({ident}), not on thread {ident}" == refusal


@pytest.fixture
def program() -> Callable[[str], str]:
    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"tests.smoke.{name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    return run


def test_a_fork_cannot_touch_its_parents_connections(program: Callable[[str], str]) -> None:
    """In a forked child the parent's ring and connections are refused; the parent goes on."""
    found = json.loads(program("forked_process"))
    ring = (
        "this ring belongs to the process that made it, of which this is a fork: "
        "make a new loop here, and leave the old one alone"
    )
    conn = (
        "this connection belongs to the process that opened it, of which this is a fork: "
        "what is done to it here would be done to the parent's, too"
    )
    assert ring == found["told"].get("wait")
    assert ["before", "after"] == found["echoed"]
    assert {"transport": conn, "wait": ring, "close": ring, "own loop": "ran"} == found["told"]
    assert 0 == found["status"]


@pytest.mark.slow  # ioxide imported twice, and no kernel in it
def test_a_second_interpreter_is_refused(program: Callable[[str], str]) -> None:
    """Importing ioxide in another interpreter says where it runs, and harms the first one's not."""
    inside, outside = program("second_interpreter").splitlines()
    assert (
        "ioxide runs in the main interpreter of a process only, and this is another one: "
        "import it there, or start a process of its own" == inside
    )
    assert "timed out" == outside


def test_a_write_without_memory_leaves_the_connection_whole(program: Callable[[str], str]) -> None:
    """A write for which there is no slab raises MemoryError, and the next one with room is sent."""
    refused = ["MemoryError", "MemoryError"]
    assert {"grow": [*refused, "sent"], "segmented": [*refused, "sent"]} == json.loads(
        program("no_slab")
    )
