# SPDX-License-Identifier: MIT
"""Tracking issue #104: the context of a reactor's thread, and the ways onto it from elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import threading
import traceback
from typing import Any

import pytest

import ioxide
from ioxide import ReactorContext
from ioxide._driver import futures
from tests.support import (
    TIMEOUT,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = pytest.mark.issue(104)

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def context_of(server: ioxide.Server, index: int = 0) -> ReactorContext:
    context = server.reactors[index].context
    assert context is not None
    return context


def test_current_is_the_context_of_the_thread() -> None:
    """current() names the reactor on its thread, in handlers and in posted callbacks, else None."""
    seen: list[tuple[Any, ...]] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        context = ReactorContext.current()
        assert context is not None
        await asyncio.sleep(0.001)
        elsewhere = await asyncio.to_thread(ReactorContext.current)
        seen.append((context, ReactorContext.current(), elsewhere, context.loop is conn_loop()))

    def conn_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with serve(handler, reactors=2) as server:
        contexts = [context_of(server, index) for index in (0, 1)]
        for reactor, context in zip(server.reactors, contexts, strict=True):
            assert reactor is context.reactor
            assert reactor.loop is context.loop
            on_reactor(reactor, lambda: seen.append((ReactorContext.current(),)))
        assert [(context,) for context in contexts] == seen
        seen.clear()
        with connect(server) as client:
            client.sendall(b"x")
            assert b"" == read_to_end(client)
        assert 1 == len(seen)
        here, after, elsewhere, is_loop = seen[0]
        assert here in contexts
        assert here is after
        assert elsewhere is None
        assert is_loop
    assert ReactorContext.current() is None


def test_copies_are_the_context_itself() -> None:
    """copy() and deepcopy() give the same object: it stands for the thread."""
    with serve(echo) as server:
        context = context_of(server)
        assert context is copy.copy(context)
        assert context is copy.deepcopy({"context": [context]})["context"][0]


def test_post_never_runs_inline() -> None:
    """post() queues, on the reactor's own thread too."""
    order: list[str] = []
    done = threading.Event()

    with serve(echo) as server:
        context = context_of(server)

        def first() -> None:
            context.post(order.append, "posted")
            context.post(done.set)
            order.append("after post()")

        context.post(first)
        assert done.wait(TIMEOUT)
    assert ["after post()", "posted"] == order


def test_send_returns_the_value() -> None:
    """send() runs the call on the reactor's thread, once, and returns its value."""
    ran: list[int] = []

    def call(left: int, right: int) -> int:
        ran.append(threading.get_ident())
        return left * right

    with serve(echo) as server:
        context = context_of(server)
        assert 42 == context.send(call, 6, 7)
        assert [server.reactors[0].thread_ident] == ran
        assert 1 == server.stats().posts


def test_send_is_inline_on_the_reactor() -> None:
    """On the reactor's own thread send() calls right there, and posts nothing."""
    order: list[str] = []

    with serve(echo) as server:
        context = context_of(server)

        def call() -> None:
            order.append("before")
            assert context.send(order.append, "sent") is None
            order.append("after")

        on_reactor(server.reactors[0], call)
        assert 1 == server.stats().posts
    assert ["before", "sent", "after"] == order


@pytest.mark.parametrize("error", [ValueError("on purpose"), TimeoutError("its own")])
def test_send_raises_what_the_call_raised(error: Exception) -> None:
    """What the call raises is raised in the caller, the same object with its traceback."""

    def deep() -> None:
        raise error

    def call() -> None:
        deep()

    with serve(echo) as server:
        with pytest.raises(type(error), match=str(error)) as caught:
            context_of(server).send(call)
        assert caught.value is error
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert ["call", "deep"] == names[-2:]
        assert 0 == server.stats().callback_faults


def test_send_gives_up_at_its_deadline() -> None:
    """A call that has not begun when its sender's time is up never runs; the error says so."""
    busy, release = threading.Event(), threading.Event()
    ran: list[int] = []

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)

    with serve(echo) as server:
        context = context_of(server)
        context.post(block)
        assert busy.wait(TIMEOUT)
        with pytest.raises(TimeoutError, match=r"within 0.05 s \(timeout\): it had not begun and"):
            context.send(ran.append, 1, timeout=0.05)
        release.set()
        context.send(lambda: None)  # everything queued before it has had its turn
    assert [] == ran


def test_send_has_a_default_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timeout send() waits for SEND_TIMEOUT seconds, and the error names that."""
    assert 30.0 == ReactorContext.SEND_TIMEOUT
    busy, release = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)

    with serve(echo) as server:
        context = context_of(server)
        context.post(block)
        assert busy.wait(TIMEOUT)
        monkeypatch.setattr(ReactorContext, "SEND_TIMEOUT", 0.05)
        with pytest.raises(TimeoutError, match=r"0.05 s \(ReactorContext.SEND_TIMEOUT\)"):
            context.send(print)
        release.set()


def test_send_that_has_begun_is_let_run(caplog: pytest.LogCaptureFixture) -> None:
    """A call that has begun goes on after the deadline; what it raises is logged and counted."""
    begun, release = threading.Event(), threading.Event()

    def late() -> None:
        begun.set()
        assert release.wait(TIMEOUT)
        raise ValueError("nobody waits")

    with serve(echo) as server:
        context = context_of(server)
        raised: list[BaseException] = []

        def send() -> None:
            try:
                context.send(late, timeout=0.5)
            except TimeoutError as error:
                raised.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        assert begun.wait(TIMEOUT)
        thread.join(TIMEOUT)
        release.set()
        assert ["has begun"] == [str(error).partition("it ")[2][:9] for error in raised]
        until(lambda: server.stats().callback_faults == 1, "the count of the late exception")
    assert "nobody waits" in caplog.text


@pytest.mark.parametrize("length", [2, 3])
def test_a_ring_of_sends_raises_at_once(length: int) -> None:
    """Reactors that wait for each other in a ring are told; nobody waits for a deadline."""
    with serve(echo, reactors=length) as server:
        contexts = [context_of(server, index) for index in range(length)]
        raised: list[str] = []

        def pass_on(index: int) -> str:
            if index:  # or the earlier one, late, would be the one that closes the ring
                before = server.reactors[index - 1].driver.thread
                until(lambda: before in futures._waits, f"{before.name} to wait")
            try:
                following = contexts[(index + 1) % length]
                return following.send(pass_on, index + 1, timeout=TIMEOUT)
            except ioxide.DeadlockError as error:
                raised.append(str(error))
                return threading.current_thread().name

        # From the first reactor round to itself: the last one in the ring is the one that is told.
        last = f"ioxide-reactor-{length - 1}"
        assert last == contexts[0].send(pass_on, 0)
        way = " -> ".join(f"ioxide-reactor-{i % length}" for i in range(-1, length))
        way = way.replace("ioxide-reactor--1", last)
        assert 1 == len(raised)
        assert f"({way})" in raised[0]


def test_sends_that_end_are_no_ring() -> None:
    """A reactor that has answered may be asked to ask back: what is done keeps nobody waiting."""
    with serve(echo, reactors=2) as server:
        first, second = context_of(server, 0), context_of(server, 1)
        for _ in range(200):
            assert 1 == first.send(lambda: second.send(lambda: 1))
            assert 2 == second.send(lambda: first.send(lambda: 2))


def test_run_starts_a_task() -> None:
    """run() starts a coroutine on the reactor's loop, in a copy of the caller's contextvars."""
    seen: list[tuple[int, str]] = []

    async def work(value: int) -> int:
        await asyncio.sleep(0.001)
        seen.append((threading.get_ident(), VARIABLE.get()))
        VARIABLE.set("changed in the task")
        return value

    with serve(echo) as server:
        VARIABLE.set("caller's")
        assert 5 == context_of(server).run(work(5)).result(TIMEOUT)
        assert [(server.reactors[0].thread_ident, "caller's")] == seen
        assert "caller's" == VARIABLE.get()

        async def elsewhere() -> int:
            return await context_of(server).run(work(6))

        assert 6 == asyncio.run(elsewhere())
        with pytest.raises(TypeError, match="run\\(\\) takes a coroutine, not 7"):
            context_of(server).run(7)  # type: ignore[arg-type]


def test_run_tells_of_a_task_that_cannot_be_made() -> None:
    """A task factory that raises, or takes no context: its error is the future's, at once."""

    def refuse(_loop: object, _coro: object) -> Any:  # as factories were before Python 3.11
        raise AssertionError("never called")

    with serve(echo) as server:
        context = context_of(server)
        on_reactor(server.reactors[0], lambda: context.loop.set_task_factory(refuse))
        future = context.run(asyncio.sleep(0))
        with pytest.raises(TypeError, match="context"):
            future.result(TIMEOUT)
        on_reactor(server.reactors[0], lambda: context.loop.set_task_factory(None))
        assert 5 == context.run(asyncio.sleep(0, 5)).result(TIMEOUT)
        assert 0 == server.stats().callback_faults


def test_run_can_be_cancelled() -> None:
    """Cancelling the future cancels the task, also before its first step."""
    ended: list[str] = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(threading.current_thread().name)
            raise

    with serve(echo) as server:
        context = context_of(server)
        future = context.run(work())
        assert begun.wait(TIMEOUT)
        assert future.cancel()
        until(lambda: len(ended) == 1, "the end of the task")
        assert ["ioxide-reactor-0"] == ended

        begun.clear()
        busy, release = threading.Event(), threading.Event()

        def block() -> None:
            busy.set()
            assert release.wait(TIMEOUT)

        context.post(block)
        assert busy.wait(TIMEOUT)
        assert context.run(work()).cancel()
        release.set()
        context.send(lambda: None)
        assert not begun.is_set()


def test_without_a_context_only_that_is_missing() -> None:
    """context=False: no object, no queue of posts; awaits come home, resume is inline."""
    seen: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            seen.append(ReactorContext.current())
            seen.append(threading.get_ident())
            await asyncio.to_thread(lambda: None)
            seen.append(threading.get_ident())
            conn.write(data)

    with serve(handler, context=False) as server, connect(server) as client:
        reactor = server.reactors[0]
        assert reactor.context is None
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        assert [None, reactor.thread_ident, reactor.thread_ident] == seen
        assert server.stats().wakeups >= 1

        # A reactor's own post() goes through the loop's queue; nobody looks at the driver's.
        ran: list[int | None] = []
        on_reactor(reactor, lambda: ran.append(threading.get_ident()))
        assert [reactor.thread_ident] == ran
        assert 0 == server.stats().posts
        with pytest.raises(RuntimeError, match=r"context=False.*loop.call_soon_threadsafe\(\)"):
            reactor.driver.post(print)
    with pytest.raises(ioxide.StoppedError, match="will not run"):
        reactor.post(print)
