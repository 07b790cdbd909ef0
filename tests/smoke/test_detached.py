# SPDX-License-Identifier: MIT
"""Tracking issue #104: `await detached(coro)` leaves the reactor for the time of one await."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ioxide
from ioxide import ReactorContext, detached
from ioxide._asyncio import companion
from ioxide._asyncio.loop import Loop
from tests.support import SMALL, TIMEOUT, connect, new_threads, read_to_end, serve, until

pytestmark = pytest.mark.issue(104)

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def handle(
    work: Callable[[ioxide.Connection], Awaitable[Any]], **changes: object
) -> tuple[ioxide.Server, list[Any]]:
    """Serve one request with `work`; the stopped server, and what `work` returned or raised."""
    outcome: list[Any] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        try:
            outcome.append(await work(conn))
        except BaseException as error:
            outcome.append(error)

    with serve(handler, **changes) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"" == read_to_end(client)
    return server, outcome


def test_inside_is_off_the_reactor() -> None:
    """Every step inside runs on the companion's thread; the await comes home with the value."""
    inside: list[int] = []
    home: list[int] = []

    async def work(_: ioxide.Connection) -> str:
        async def steps() -> str:
            inside.append(threading.get_ident())
            await asyncio.sleep(0.001)
            inside.append(threading.get_ident())
            await asyncio.to_thread(lambda: None)
            inside.append(threading.get_ident())
            assert ReactorContext.current() is None
            return "value"

        home.append(threading.get_ident())
        value = await detached(steps())
        home.append(threading.get_ident())
        return value

    server, outcome = handle(work)
    assert ["value"] == outcome
    assert [server.reactors[0].thread_ident] * 2 == home
    assert 1 == len(set(inside))
    assert server.reactors[0].thread_ident not in inside
    assert threading.get_ident() not in inside


def test_a_blocking_inside_does_not_hold_up_the_reactor() -> None:
    """While the inside blocks its thread, the reactor serves others."""
    release = threading.Event()
    blocked = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        if await conn.recv() == b"block":

            async def block() -> None:
                blocked.set()
                assert release.wait(TIMEOUT)

            await detached(block())
        conn.write(b"done")

    with serve(handler) as server, connect(server) as first, connect(server) as second:
        first.sendall(b"block")
        assert blocked.wait(TIMEOUT)
        second.sendall(b"x")
        assert b"done" == read_to_end(second)
        release.set()
        assert b"done" == read_to_end(first)


def test_contextvars_are_copied() -> None:
    """The inside sees the caller's contextvars, and changes none of them."""

    async def work(_: ioxide.Connection) -> list[str]:
        async def look() -> str:
            before = VARIABLE.get()
            VARIABLE.set("changed inside")
            return before

        VARIABLE.set("caller's")
        return [await detached(look()), VARIABLE.get()]

    assert [["caller's", "caller's"]] == handle(work)[1]


def test_exceptions_pass_through() -> None:
    """What the inside raises is raised at home, with the traceback of the inside."""
    error = ValueError("on purpose")

    async def work(_: ioxide.Connection) -> None:
        async def deep() -> None:
            await asyncio.sleep(0)
            raise error

        await detached(deep())

    assert [error] == handle(work)[1]
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "deep" == names[-1]


USES: list[Callable[[ioxide.Connection], Any]] = [
    lambda conn: conn.recv(),
    lambda conn: conn.flush(),
    lambda conn: conn.read().__aenter__(),
    lambda conn: conn.write(b"x"),
    lambda conn: conn.close(),
    lambda conn: conn.abort(),
    lambda conn: conn.fileno(),
    lambda conn: conn.peername,
    lambda conn: conn.sockname,
]


def test_a_connection_is_not_to_be_used_inside() -> None:
    """Each method of a connection raises inside, with a sentence that names its reactor."""

    async def work(conn: ioxide.Connection) -> list[str]:
        async def use() -> list[str]:
            told: list[str] = []
            for call in USES:
                try:
                    result = call(conn)
                    if asyncio.iscoroutine(result):
                        await result
                    told.append("nothing")
                except RuntimeError as error:
                    told.append(str(error))
            repr(conn)  # for logs, this works everywhere
            return told

        return await detached(use())

    told = handle(work)[1][0]
    assert ["this connection belongs to ioxide-reactor-0 on thread"] * len(USES) == [
        text[:53] for text in told
    ]
    assert all("Reactor.post()" in text for text in told)


def test_cancelling_waits_for_the_inside() -> None:
    """The await that is cancelled ends when the inside has: its cleanup has run by then."""
    order: list[str] = []

    async def work(_: ioxide.Connection) -> None:
        async def inside() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                order.append("inside has ended")

        begun = threading.Event()
        task = asyncio.create_task(detached(inside()))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        task.cancel("my reason")
        try:
            await task
        except asyncio.CancelledError as error:
            order.append(f"cancelled: {error.args}")

    handle(work)
    assert ["inside has ended", "cancelled: ('my reason',)"] == order


def test_an_inside_may_refuse_to_be_cancelled() -> None:
    """As with a plain await: who catches the cancellation goes on, and its value counts."""

    async def work(_: ioxide.Connection) -> str:
        async def stubborn() -> str:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "refused"
            return "never"

        begun = threading.Event()
        task = asyncio.create_task(detached(stubborn()))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        task.cancel()
        return await task

    assert ["refused"] == handle(work)[1]


def test_a_timeout_bounds_the_inside() -> None:
    """asyncio.timeout() around it cancels the inside and raises TimeoutError."""
    ended = threading.Event()

    async def work(_: ioxide.Connection) -> None:
        async def inside() -> None:
            # What has not begun is cancelled without a trace: the clock starts in here.
            home.call_soon_threadsafe(bound.reschedule, home.time() + 0.05)
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        home = asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            await detached(inside())

    outcome = handle(work)[1]
    assert [TimeoutError] == [type(error) for error in outcome]
    assert ended.is_set()


def test_a_cancellation_is_never_lost() -> None:
    """However close to the inside's end it comes, a task that was cancelled knows of it."""
    rounds = 300
    late: list[bool] = []

    async def work(_: ioxide.Connection) -> None:
        async def inside() -> str:
            return "value"

        for index in range(rounds):
            task = asyncio.create_task(detached(inside()))
            for _step in range(1 + index % 6):  # a task that has not begun has nothing inside
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                late.append(True)
            else:
                assert "value" == await task
                late.append(False)

    outcome = handle(work)[1]
    assert [None] == outcome
    assert rounds == len(late)
    assert True in late


def test_a_cancellation_that_finds_the_inside_ended_is_not_lost() -> None:
    """The inside ends before it hears of the cancellation: the await raises CancelledError."""

    async def work(_: ioxide.Connection) -> None:
        async def inside() -> str:
            begun.set()
            assert release.wait(TIMEOUT)  # what the companion is asked meanwhile comes too late
            return "value"

        begun, release = threading.Event(), threading.Event()
        task = asyncio.create_task(detached(inside()))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        task.cancel()
        for _step in range(3):
            await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [None] == handle(work)[1]


def test_a_stop_cancels_the_inside() -> None:
    """A stopping reactor cancels detached work, waits for its cleanup and ends its thread."""
    begun = threading.Event()
    ended: list[str] = []

    async def handler(_: ioxide.Connection) -> None:
        async def inside() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("inside")
                raise

        try:
            await detached(inside())
        except asyncio.CancelledError:
            ended.append("home")
            raise

    threads = threading.enumerate()
    with serve(handler, stop_timeout_ms=10) as server, connect(server):
        assert begun.wait(TIMEOUT)
    assert ["inside", "home"] == ended
    assert [] == new_threads(threads)


def test_a_cancellation_finds_the_companion_gone() -> None:
    """Cancelled when the companion has closed its loop but its news is not home yet: cancelled."""

    async def main() -> None:
        home = asyncio.get_running_loop()
        assert isinstance(home, Loop)
        begun = threading.Event()

        async def inside() -> None:
            begun.set()
            await asyncio.Event().wait()

        work = asyncio.create_task(detached(inside()))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        gone = home.companion()
        work.cancel("late")  # waits in home's queue, and before the news, while home is held up
        home.begin_end()
        gone.close()
        assert not work.done()
        with pytest.raises(asyncio.CancelledError):
            await work

    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        runner.run(main())


def _companions() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith("-companion")]


def test_a_program_that_ends_ends_its_companion(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """run() closes its loop without a stop; the companion's thread ends all the same."""
    monkeypatch.setattr(companion, "GRACE", TIMEOUT)

    async def main() -> int:
        return await detached(asyncio.sleep(0, len(_companions())))

    assert 0 == ioxide.run(main(), config=SMALL)
    assert [] == caplog.messages
    assert [] == _companions()


def test_the_companions_loop_is_never_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose policy makes loops of ours detaches onto an ordinary one all the same."""
    monkeypatch.setattr(asyncio, "new_event_loop", ioxide.new_event_loop)

    async def main() -> None:
        home = asyncio.get_running_loop()
        assert isinstance(home, Loop)
        assert asyncio.SelectorEventLoop is type(home.companion()._loop)

        async def inside() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        assert home.companion()._loop is await detached(inside())

    ioxide.run(main(), config=SMALL)


def test_a_stop_leaves_behind_what_does_not_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An inside that blocks its thread for ever holds up no stop; its thread is named."""
    monkeypatch.setattr(companion, "GRACE", 0.1)
    begun, release = threading.Event(), threading.Event()
    ended: list[type[BaseException]] = []

    async def handler(_: ioxide.Connection) -> None:
        async def block() -> None:
            begun.set()
            release.wait()

        try:
            await detached(block())
        except BaseException as error:
            ended.append(type(error))
            raise

    threads = threading.enumerate()
    with caplog.at_level(logging.ERROR):
        with serve(handler, stop_timeout_ms=10) as server, connect(server):
            assert begun.wait(TIMEOUT)
    assert [asyncio.CancelledError] == ended
    assert "ioxide-reactor-0-companion: detached work does not end 0.1 s" in caplog.text
    release.set()
    until(lambda: not new_threads(threads), "the end of the thread left behind")


def test_an_exit_inside_ends_the_reactor_not_the_companion() -> None:
    """SystemExit inside is raised where it is awaited, and the next detached() still works."""
    values: list[object] = []

    async def work(_: ioxide.Connection) -> None:
        async def leave() -> None:
            raise SystemExit(3)

        async def go_on() -> str:
            return "alive"

        try:
            await detached(leave())
        except SystemExit as error:
            values.append(error.code)
        values.append(await detached(go_on()))

    handle(work)
    assert [3, "alive"] == values


def test_it_takes_coroutines_only() -> None:
    """Anything but a coroutine is refused by name."""

    async def work(_: ioxide.Connection) -> None:
        await detached(asyncio.sleep)  # type: ignore[arg-type]

    outcome = handle(work)[1]
    assert "detached() takes a coroutine, not <function sleep" in str(outcome[0])


def test_elsewhere_it_is_a_task() -> None:
    """On a loop that is no reactor's the coroutine runs there, in a copy of the contextvars."""

    async def inside() -> int:
        VARIABLE.set("changed inside")
        await asyncio.sleep(0)
        return threading.get_ident()

    async def main() -> None:
        VARIABLE.set("caller's")
        assert threading.get_ident() == await detached(inside())
        assert "caller's" == VARIABLE.get()

    asyncio.run(main())
