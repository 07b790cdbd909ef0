# SPDX-License-Identifier: MIT
"""When and how a parked task is resumed: the rules that are dear to change later.

A task is resumed inline, from dispatch only, while no task is current and no context is entered.
What completes inside a step waits for the end of the batch.  A waiter is woken once, by whoever is
first, and a cancelled read loses no byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import ioxide
from ioxide._driver.driver import Driver
from tests.support import (
    SMALL,
    TIMEOUT,
    connect,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_unread,
)


def test_recv_is_resumed_inline() -> None:
    """Answering a request takes no asyncio handle: the task is stepped inside the tick."""
    steps: list[bool] = []
    queued: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            steps.append(asyncio.current_task() is not None)
            conn.write(data)

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"ping" == read_exactly(client, 4)  # the task was made by a handle
        loop = server.reactors[0].loop

        def watched(callback: Any, *args: Any, **named: Any) -> asyncio.Handle:
            queued.append(callback)
            return type(loop).call_soon(loop, callback, *args, **named)

        on_reactor(server.reactors[0], lambda: setattr(loop, "call_soon", watched))
        for _ in range(3):
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
        on_reactor(server.reactors[0], lambda: delattr(loop, "call_soon"))

    assert [True] * 4 == steps
    assert [] == queued


def test_a_handler_may_close_another_ones_connection() -> None:
    """A closes B while B is parked: both handlers end, and both peers see the end."""
    ended: list[str] = []
    parked: dict[str, ioxide.Connection] = {}

    async def handler(conn: ioxide.Connection) -> None:
        name = (await conn.recv()).decode()
        conn.write(b"k")
        parked[name] = conn
        command = await conn.recv()
        if command == b"close the other":
            parked["B"].close()
        ended.append(f"{name}:{command.decode()}")

    with serve(handler) as server, connect(server) as a, connect(server) as b:
        for client, name in ((a, b"A"), (b, b"B")):
            client.sendall(name)
            assert b"k" == read_exactly(client, 1)
        a.sendall(b"close the other")
        assert b"" == a.recv(1)
        assert b"" == b.recv(1)
        until(lambda: len(ended) == 2, "the end of both handlers")
        assert 0 == server.stats().wakeup_faults

    assert ["A:close the other", "B:"] == ended


def test_chain_of_closes() -> None:
    """Each of a hundred parked handlers, woken by the one before, closes the next one."""
    count = 100
    conns: list[ioxide.Connection] = []
    ended: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        number = len(conns)
        conns.append(conn)
        await conn.recv()
        if number + 1 < count:
            conns[number + 1].close()
        ended.append(number)

    with serve(handler) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        until(lambda: len(conns) == count, "all connections")
        on_reactor(server.reactors[0], lambda: conns[0].close())
        for client in clients:
            assert b"" == client.recv(1)
        assert 0 == server.stats().wakeup_faults
    assert list(range(count)) == ended


def test_ten_thousand_wake_ups_keep_the_stack_flat() -> None:
    """A chain of 10,000 wake-ups, each caused inside the step before it, does not nest."""
    wanted = 10_000
    tasks: list[asyncio.Task[None]] = []
    steps = 0
    depths: set[int] = set()
    done = threading.Event()

    def depth() -> int:
        frame, count = sys._getframe(), 0
        while frame.f_back is not None:
            frame, count = frame.f_back, count + 1
        return count

    async def handler(conn: ioxide.Connection) -> None:
        nonlocal steps
        me = asyncio.current_task()
        assert me is not None
        number = len(tasks)
        tasks.append(me)
        while steps < wanted:
            try:
                await conn.recv()
            except asyncio.CancelledError:
                me.uncancel()
                depths.add(depth())
                steps += 1
                tasks[1 - number].cancel()  # parked: woken from inside this step
        done.set()

    with serve(handler) as server, connect(server), connect(server):
        until(lambda: len(tasks) == 2, "both handlers")
        ticks = server.stats().enters
        on_reactor(server.reactors[0], lambda: (tasks[0].cancel(), None)[1])
        assert done.wait(TIMEOUT)
        ticks = server.stats().enters - ticks
        assert 0 == server.stats().wakeup_faults

    assert wanted <= steps
    assert 1 == len(depths)
    # They were indeed one chain in one batch, not ten thousand batches.
    assert ticks < 100


def _two_orders(first: str) -> tuple[bytes, list[str], ioxide.Counters]:
    """A read that is both cancelled and completed in one tick; then the same bytes are read."""
    events: list[str] = []
    conns: list[ioxide.Connection] = []
    tasks: list[asyncio.Task[None]] = []

    async def handler(conn: ioxide.Connection) -> None:
        me = asyncio.current_task()
        assert me is not None
        conns.append(conn)
        tasks.append(me)
        try:
            await conn.recv()
            events.append("woken")
            if first == "completion":
                # Both were in this batch; the other has been woken by its data, and is not
                # resumed yet.
                other = tasks[1 - tasks.index(me)]
                other.cancel()
            conn.write(b"-")
        except asyncio.CancelledError:
            me.uncancel()
            events.append("cancelled")
            conn.write(await conn.recv())

    with serve(handler) as server, connect(server) as one, connect(server) as two:
        reactor = server.reactors[0]
        until(lambda: len(conns) == 2, "both handlers")

        def block() -> None:
            # On the reactor's thread: what arrives now is one batch.
            one.sendall(b"payload")
            two.sendall(b"payload")
            for conn in conns:
                wait_unread(conn.fileno(), 7)
            if first == "cancel":
                tasks[0].cancel()

        on_reactor(reactor, block)
        answers = sorted((read_to_end(one), read_to_end(two)))
        return answers[1], events, server.stats()


def test_cancel_then_completion_in_one_tick(caplog: pytest.LogCaptureFixture) -> None:
    """A read cancelled before its data is seen raises CancelledError; the bytes are still there."""
    answer, events, stats = _two_orders("cancel")
    assert b"payload" == answer
    assert [] == caplog.messages  # a task that is woken twice is an error that asyncio logs
    assert ["cancelled", "woken"] == sorted(events)
    assert 0 == stats.wakeup_faults


def test_completion_then_cancel_in_one_tick(caplog: pytest.LogCaptureFixture) -> None:
    """A read cancelled after its data woke it raises CancelledError; the bytes are still there."""
    answer, events, stats = _two_orders("completion")
    assert b"payload" == answer
    assert [] == caplog.messages
    assert ["woken", "cancelled"] == events
    assert 0 == stats.wakeup_faults


def test_recv_is_no_future() -> None:
    """asyncio.isfuture() is False for what recv() and flush() return, or gather() would break."""
    seen: list[bool] = []

    async def handler(conn: ioxide.Connection) -> None:
        for awaitable in (conn.recv(), conn.flush()):
            seen.append(asyncio.isfuture(awaitable))
            seen.append(asyncio.iscoroutine(awaitable))
            awaitable.close()

    with serve(handler) as server, connect(server) as client:
        assert b"" == read_to_end(client)
    assert [False, True, False, True] == seen


def test_second_reader_is_refused() -> None:
    """While a task reads, another one's recv() raises; the first still gets the bytes."""

    async def handler(conn: ioxide.Connection) -> None:
        reader = asyncio.create_task(conn.recv())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task is already reading"):
            await conn.recv()
        conn.write(b"ready")
        conn.write(await reader)

    with serve(handler) as server, connect(server) as client:
        assert b"ready" == read_exactly(client, 5)
        client.sendall(b"bytes")
        assert b"bytes" == read_to_end(client)
        assert 0 == server.stats().handler_faults


def test_an_await_is_used_once() -> None:
    """Awaiting the same recv() object twice raises, as with a coroutine."""

    async def handler(conn: ioxide.Connection) -> None:
        awaitable = conn.recv()
        conn.write(await awaitable)
        with pytest.raises(RuntimeError, match="already awaited"):
            await awaitable
        conn.write(b"!")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"once")
        assert b"once!" == read_to_end(client)


Wrap = Callable[[ioxide.Connection], Awaitable[bytes]]


async def _wait_for(conn: ioxide.Connection) -> bytes:
    data: bytes = await asyncio.wait_for(conn.recv(), TIMEOUT)
    return data


async def _gather(conn: ioxide.Connection) -> bytes:
    data: bytes
    data, nothing = await asyncio.gather(conn.recv(), asyncio.sleep(0.001))
    assert nothing is None
    return data


async def _wait(conn: ioxide.Connection) -> bytes:
    done, pending = await asyncio.wait({asyncio.create_task(conn.recv())}, timeout=TIMEOUT)
    assert not pending
    return done.pop().result()


async def _shield(conn: ioxide.Connection) -> bytes:
    return await asyncio.shield(conn.recv())


async def _create_task(conn: ioxide.Connection) -> bytes:
    return await asyncio.create_task(conn.recv())


async def _timeout(conn: ioxide.Connection) -> bytes:
    async with asyncio.timeout(TIMEOUT):
        return await conn.recv()


async def _task_group(conn: ioxide.Connection) -> bytes:
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(conn.recv())
        group.create_task(asyncio.sleep(0.001))
    return reader.result()


@pytest.mark.parametrize(
    "wrap", [_wait_for, _gather, _wait, _shield, _create_task, _timeout, _task_group]
)
@pytest.mark.parametrize("when", ["ready", "parked"])
def test_recv_composes_with_asyncio(wrap: Wrap, when: str) -> None:
    """asyncio's combinators work around recv(), with bytes that are there and bytes to come."""

    async def handler(conn: ioxide.Connection) -> None:
        if when == "ready":
            while not conn._queued:
                await asyncio.sleep(0.001)
        else:
            conn.write(b"go")
        conn.write(await wrap(conn))

    with serve(handler) as server, connect(server) as client:
        if when == "parked":
            assert b"go" == read_exactly(client, 2)
        client.sendall(b"payload")
        assert b"payload" == read_to_end(client)
        assert 0 == server.stats().handler_faults


async def _late_wait_for(conn: ioxide.Connection) -> None:
    await asyncio.wait_for(conn.recv(), 0.01)


async def _late_timeout(conn: ioxide.Connection) -> None:
    async with asyncio.timeout(0.01):
        await conn.recv()


async def _late_task(conn: ioxide.Connection) -> None:
    task = asyncio.create_task(conn.recv())
    await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        raise TimeoutError from None


@pytest.mark.parametrize("late", [_late_wait_for, _late_timeout, _late_task])
def test_a_read_that_timed_out_loses_nothing(
    late: Callable[[ioxide.Connection], Awaitable[None]],
) -> None:
    """After a read was given up, the next one returns all that came, and current_task is right."""

    async def handler(conn: ioxide.Connection) -> None:
        me = asyncio.current_task()
        with pytest.raises(TimeoutError):
            await late(conn)
        assert asyncio.current_task() is me
        conn.write(b"late")
        conn.write(await conn.recv())

    with serve(handler) as server, connect(server) as client:
        assert b"late" == read_exactly(client, 4)
        client.sendall(b"kept")
        assert b"kept" == read_to_end(client)
        assert 0 == server.stats().handler_faults


def test_context_variables_are_the_tasks_own() -> None:
    """A context variable set in a handler is there after each await, and in no other handler."""
    name: contextvars.ContextVar[bytes] = contextvars.ContextVar("name")

    async def handler(conn: ioxide.Connection) -> None:
        assert name.get(b"unset") == b"unset"
        name.set(await conn.recv())
        conn.write(b"k")
        await conn.recv()
        conn.write(name.get())

    with serve(handler) as server, connect(server) as one, connect(server) as two:
        for client, value in ((one, b"one"), (two, b"two")):
            client.sendall(value)
            assert b"k" == read_exactly(client, 1)
        for client, value in ((two, b"two"), (one, b"one")):
            client.sendall(b"?")
            assert value == read_exactly(client, 3)


@contextlib.contextmanager
def main_thread_loop(
    handler: Callable[[ioxide.Connection], Awaitable[None]],
) -> Iterator[tuple[ioxide.Loop, int, list[asyncio.Task[None]]]]:
    """A loop that runs where the test does, accepting on a port: to see what leaves it."""
    tasks: list[asyncio.Task[None]] = []

    async def run(conn: ioxide.Connection) -> None:
        await handler(conn)

    def start(conn: ioxide.Connection) -> None:
        tasks.append(loop.create_task(run(conn)))

    loop = ioxide.Loop(Driver(SMALL), on_connection=start)
    with contextlib.closing(loop), socket.create_server(("127.0.0.1", 0)) as listener:
        loop.driver.listen(listener.fileno())
        yield loop, listener.getsockname()[1], tasks


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_but_the_batch_is_kept(leaving: type[BaseException]) -> None:
    """KeyboardInterrupt in one handler leaves the loop; the others of its batch go on later."""
    parked: list[ioxide.Connection] = []
    got: list[bytes] = []

    async def handler(conn: ioxide.Connection) -> None:
        parked.append(conn)
        data = await conn.recv()
        got.append(data)
        if len(got) == 1:
            raise leaving("on purpose")

    async def all_parked() -> None:
        while len(parked) < 3:
            await asyncio.sleep(0.001)

    def block() -> None:
        for client in clients:
            client.sendall(b"x")
        for conn in parked:
            wait_unread(conn.fileno(), 1)

    async def forever() -> None:
        loop.call_soon(block)
        await asyncio.sleep(TIMEOUT)

    with main_thread_loop(handler) as (loop, port, tasks), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)
        ]
        loop.run_until_complete(all_parked())
        main = loop.create_task(forever())
        with pytest.raises(leaving, match="on purpose"):
            loop.run_until_complete(main)
        assert [b"x"] == got  # it left at once ...

        loop.run_until_complete(asyncio.wait(tasks, timeout=TIMEOUT))
        assert [b"x"] * 3 == got  # ... and nothing of the batch was lost
        with pytest.raises(leaving):
            next(task for task in tasks if task.exception() is not None).result()
        main.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(main)


def test_no_exception_unwinds_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers that raise at every stage are logged and counted, and the reactor goes on."""

    async def handler(conn: ioxide.Connection) -> None:
        command = await conn.recv()
        if command == b"raise":
            raise ValueError("after an await")
        if command == b"background":
            asyncio.get_running_loop().call_soon(_explode)
            asyncio.create_task(_fail())  # noqa: RUF006 - forgotten on purpose
        conn.write(b"done")

    def _explode() -> None:
        raise ValueError("in a callback")

    async def _fail() -> None:
        raise ValueError("in a forgotten task")

    with caplog.at_level(logging.ERROR), serve(handler) as server:
        for command, answer in ((b"raise", b""), (b"background", b"done"), (b"ping", b"done")):
            with connect(server) as client:
                client.sendall(command)
                assert answer == read_to_end(client)
        assert 1 == server.stats().handler_faults
        assert server.reactors[0].is_alive
    assert "after an await" in caplog.text
    assert "in a callback" in caplog.text


def test_handler_that_raises_before_its_first_await(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises at once is released once: the peer sees the end, the fd is closed."""

    async def handler(_: ioxide.Connection) -> None:
        raise ValueError("at once")

    with caplog.at_level(logging.ERROR), serve(handler) as server:
        for _ in range(5):
            with connect(server) as client:
                assert b"" == read_to_end(client)
        until(lambda: server.stats().closes == 5, "all five closed")
        assert 5 == server.stats().handler_faults
        assert 0 == server.stats().connections_now
