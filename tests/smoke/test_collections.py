# SPDX-License-Identifier: MIT
"""Finalizers may do anything at any time, and the core stays in order.

The collector runs them where something allocates (until CPython 3.11), and a dropped reference runs
them where it is dropped. Each of these lost a wake-up, a callback or a connection, or made the
process spin with the GIL held.
"""

from __future__ import annotations

import contextvars
import gc
import json
import os
import socket
import subprocess
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ioxide._driver.connection import Connection
from ioxide._driver.driver import Driver
from ioxide._ring import _core
from tests.smoke.bench import Bench
from tests.smoke.hostile_finalizers import arm, disarm
from tests.support import SMALL, TIMEOUT

ROOT = Path(__file__).parents[2]
ALLOCATIONS = range(6)


def _play(allocations: int) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.smoke.hostile_finalizers", str(allocations)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
            env={**os.environ, "IOXIDE_TEST_TIMEOUT": str(TIMEOUT)},
        )
    except subprocess.TimeoutExpired as expired:
        last = repr(expired.stderr)[-200:]
        raise AssertionError(f"the process hangs in the last of these cases: {last}") from None
    assert 0 == done.returncode, f"the process ended in a case of:\n{done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_finalizers_inside_every_call() -> None:
    """Whatever a finalizer does to the connection in use, its handler goes on and ends."""
    found = _play(3)
    assert [] == found["problems"]
    assert found["cases"] == found["ran"] == 240


@pytest.mark.slow  # the same, for more of the allocations
def test_finalizers_inside_every_call_and_beyond() -> None:
    """The same at each of the next twelve allocations; the interpreter's own are among them."""
    found = _play(12)
    assert [] == found["problems"]
    assert found["cases"] == 960


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    disarm()
    made.close()
    assert [] == made.faults
    assert [] == made.astray


@pytest.mark.parametrize("action", ["unlisten", "adopt", "listen", "abort", "collect"])
def test_an_accepted_connection_goes_where_its_listener_says(bench: Bench, action: str) -> None:
    """A finalizer in the tick that takes connections: each is handed over once, none astray."""
    driver = bench.driver
    first = bench.connection()
    ours = socket.socketpair()
    for sock in ours:
        bench.stack.enter_context(sock)
    other = bench.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    adopted: list[Any] = []
    actions: dict[str, Callable[[], object]] = {
        "unlisten": lambda: driver.unlisten(bench.listener.fileno()),
        "adopt": lambda: adopted.append(driver.adopt(ours[0].fileno(), True)),
        "listen": lambda: driver.listen(other.fileno(), bench.taken.append),
        "abort": first.abort,
        "collect": gc.collect,
    }
    clients = 0
    for allocations in ALLOCATIONS[: 1 if action == "adopt" else None]:
        for _ in range(3):
            bench.client()
            clients += 1
        driver.wait(TIMEOUT)
        arm(actions[action], allocations)
        driver.dispatch()
        disarm()
        if action == "unlisten":
            driver.listen(bench.listener.fileno(), bench.taken.append)
        while len(bench.taken + bench.astray) + driver.counters().accepts_shed < clients:
            bench.tick()
        assert 0 == len(bench.astray), "a connection went to another listener's"
    connections = driver.connections()
    assert len({id(conn) for conn in bench.taken}) == len(bench.taken)
    assert len({conn._fd for conn in connections}) == len(connections)
    bench.driver.close()  # before the sockets are


@pytest.mark.parametrize("allocations", ALLOCATIONS)
def test_a_connection_has_one_face(bench: Bench, allocations: int) -> None:
    """Of an _attach() and the one that a finalizer makes inside it, one is refused."""
    conn = bench.connection()
    told: list[str] = []
    context = contextvars.copy_context()

    def attach(name: str) -> None:
        try:
            conn._attach(lambda _: told.append(f"{name} called"), context)
            told.append(name)
        except RuntimeError:
            told.append(f"{name} refused")

    for _ in range(4):
        conn._flush_threadsafe(lambda _: None)  # takes what the core would recycle
    arm(lambda: attach("inner"), allocations)
    attach("outer")
    disarm()
    assert {"inner refused", "outer"} == {*told} or {"inner", "outer refused"} == {*told}
    conn.abort()
    while conn in bench.driver.connections():
        bench.tick()
    attached = next(name for name in told if " " not in name)
    assert f"{attached} called" in told


def _parked(bench: Bench) -> tuple[Any, Any]:
    """A read of a new connection, and what it waits with."""
    read = bench.connection().recv()
    return read, read.send(None)


def test_one_task_waits_on_an_await(bench: Bench) -> None:
    """Of an add_done_callback() and a finalizer's inside it, one is refused and one is called."""
    spare = [contextvars.copy_context() for _ in range(300)]  # or one would be recycled
    for allocations in ALLOCATIONS:
        _add_two_callbacks(bench, allocations)
    assert spare


def _add_two_callbacks(bench: Bench, allocations: int) -> None:
    read, waiter = _parked(bench)
    told: list[str] = []
    called: list[str] = []

    def add(name: str, callback: Callable[[object], None]) -> None:
        try:
            waiter.add_done_callback(callback)
            told.append(name)
        except RuntimeError:
            told.append(f"{name} refused")

    def inner(_: object) -> None:
        called.append("inner")

    def outer(_: object) -> None:
        called.append("outer")

    arm(lambda: add("inner", inner), allocations)
    add("outer", outer)
    disarm()
    waiter.cancel()
    bench.tick()
    read.close()
    assert [name for name in told if " " not in name] == called, "two callbacks were taken"


@pytest.mark.parametrize("allocations", ALLOCATIONS)
def test_a_thread_is_one_worker(bench: Bench, allocations: int) -> None:
    """Of a Worker and one that a finalizer makes inside it, one is refused."""
    made: list[_core.Worker] = []
    refused: list[str] = []

    def make() -> None:
        try:
            made.append(_core.Worker(bench.driver._core, None, print))
        except RuntimeError as error:
            refused.append(str(error))

    arm(make, allocations)
    make()
    disarm()
    try:
        assert (1, ["this thread is a worker already"]) == (len(made), refused)
    finally:
        made[-1].detach()


def test_a_cancelled_wait_is_called_once(bench: Bench) -> None:
    """A finalizer of the message of an earlier cancel() cancels once more: one call, not two."""
    conn = bench.connection()
    calls: list[Any] = []
    conn._attach(calls.append, contextvars.copy_context())
    conn._watch(0)  # calls at once
    bench.tick()
    calls.clear()
    waiter: Any = next(one for one in gc.get_referents(conn) if type(one).__name__ == "Waiter")

    class Message:
        def __del__(self) -> None:
            answers.append(waiter.cancel())

    answers: list[bool] = []
    waiter.cancel(Message())
    bench.driver.wait(0)
    bench.driver.dispatch()
    assert [None] == calls
    calls.clear()
    answers.append(waiter.cancel())  # drops the message
    bench.driver.wait(0)
    bench.driver.dispatch()
    assert [False, True] == answers
    assert [None] == calls


def test_comparing_callbacks_may_remove_them(bench: Bench) -> None:
    """A callback whose comparison removes it is removed once."""
    read, waiter = _parked(bench)

    class Callback:
        def __call__(self, _: object) -> None:
            raise AssertionError("it was removed")

        def __eq__(self, other: object) -> bool:
            if inner:
                waiter.remove_done_callback(inner.pop())
            return True

        __hash__ = None  # type: ignore[assignment]

    inner: list[object] = [Callback()]
    waiter.add_done_callback(Callback())
    assert 0 == waiter.remove_done_callback(object())
    waiter.cancel()
    bench.tick()
    read.close()


def test_a_number_whose_owner_closes_the_driver(bench: Bench) -> None:
    """fileno() may do anything, too: close the driver that is asked to take the connection over."""

    class Last:
        def fileno(self) -> int:
            bench.driver.close()
            return 0

    with pytest.raises(RuntimeError, match="this driver is closed"):
        bench.driver.adopt(Last(), False)  # type: ignore[arg-type]


def test_batches_whose_numbers_close_the_driver(bench: Bench) -> None:
    """A forged completion may do it as well."""

    class Last:
        def __index__(self) -> int:
            bench.driver.close()
            return 0

    with pytest.raises(RuntimeError, match="this driver is closed"):
        bench.driver._core._feed([(2 << 56, Last(), 0)])  # type: ignore[list-item]


def test_a_weakrefs_callback_meets_a_whole_batch(bench: Bench) -> None:
    """What the end of a connection calls comes when all of the batch has been taken in."""
    seen: list[tuple[int, int]] = []
    driver = bench.driver
    conns = [bench.connection() for _ in range(3)]
    refs = [
        weakref.ref(
            conn, lambda _: seen.append((len(driver.connections()), driver.counters().closes))
        )
        for conn in conns
    ]
    while conns:
        conns.pop().abort()
    driver.wait(0)  # submits the cancellations, all three
    while len(seen) < 3:
        bench.tick()
    assert [None] * 3 == [ref() for ref in refs]
    assert [(0, 3)] * 3 == seen


def test_a_worker_takes_connections_of_its_own_reactor(bench: Bench) -> None:
    """What is no connection is refused with its value; and so is another reactor's connection."""
    conn = bench.connection()
    worker = _core.Worker(bench.driver._core, None, print)
    worker.detach()
    for wrong in (object(), None, 3, bench.driver._core):
        with pytest.raises(TypeError, match=r"start\(\) takes a Connection, not "):
            worker.start(wrong)  # type: ignore[arg-type]
    other = Driver(SMALL)
    try:
        stranger = _core.Worker(other._core, None, print)
        try:
            with pytest.raises(ValueError, match="a connection of another reactor"):
                stranger.start(conn)
        finally:
            stranger.detach()
    finally:
        other.close()


def test_a_worker_that_ends_takes_nothing_from_a_finalizer(bench: Bench) -> None:
    """start() inside detach() says that the worker has ended, and keeps nothing for ever."""
    kept, last = bench.connection(), bench.connection()
    calls: list[object] = []
    loop = types.SimpleNamespace(call_soon_threadsafe=calls.append)
    worker = _core.Worker(bench.driver._core, loop, print)
    answers: list[bool] = []
    gone = weakref.ref(last, lambda _: answers.append(worker.start(kept)))
    assert worker.start(last)
    last.abort()
    while len(bench.driver.connections()) > 1:
        bench.tick()
    del last
    worker.detach()  # drops the last reference to what was not started
    assert gone() is None
    assert [False] == answers


def _references() -> dict[str, int]:
    gc.collect()
    core = (_core.Await, _core.Connection, _core.Driver, _core.Slice, _core.Waiter, _core.Worker)
    return {str(kind): sys.getrefcount(kind) for kind in (*core, Connection)}


def test_each_object_gives_the_reference_to_its_type_back() -> None:
    """The types are heap types: one reference too few would free a type that is in use."""

    def use_all() -> None:
        bench = Bench()
        try:
            conn = bench.connection()
            for _ in range(300):  # more than the free lists keep
                conn.recv().close()
                slices = conn._recv_slices()
                bench.astray.append(slices)
            for made in bench.astray:
                made.close()
            bench.astray.clear()
            worker = _core.Worker(bench.driver._core, None, print)
            worker.detach()
        finally:
            bench.close()

    use_all()
    before = _references()
    use_all()

    assert before == _references()


def test_a_lent_buffer_gives_the_reference_to_its_type_back(bench: Bench) -> None:
    client = bench.client()
    while not bench.taken:
        bench.tick()
    conn = bench.taken.pop()
    conn._read(True)
    bench.driver.wait(0)
    before = sys.getrefcount(_core.Slice)

    for _ in range(3):
        client.sendall(b"bytes")
        while not conn._queued:
            bench.tick()
        with pytest.raises(StopIteration) as lent:
            conn._recv_slices().send(None)
        (one,) = lent.value.value
        meanwhile = sys.getrefcount(_core.Slice)
        one.end()
        del lent, one
        afterwards = sys.getrefcount(_core.Slice)
        assert (before + 1, before) == (meanwhile, afterwards)
