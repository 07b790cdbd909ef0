# SPDX-License-Identifier: MIT
"""call_soon(), call_at(), call_later() and the handles that they queue, as on asyncio's loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import signal
import sys
import threading
import traceback
import weakref
from asyncio import base_events
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import ioxide
from ioxide.loop import Loop
from tests.support import SMALL

LOOPS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "ioxide": lambda: ioxide.new_event_loop(SMALL),
}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture(params=LOOPS, name="loop")
def loop_fixture(request: pytest.FixtureRequest) -> Iterator[Any]:
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture(name="ours")
def ours_fixture() -> Iterator[Any]:
    loop = ioxide.new_event_loop(SMALL)
    yield loop
    loop.close()


@pytest.fixture(name="told")
def told_fixture(loop: Any) -> list[dict[str, Any]]:
    """What the loop's exception handler is told."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    return told


def turns(loop: Any, count: int = 1) -> None:
    """Run `loop` for so many turns."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def nothing(*_: object) -> None:
    """A callback."""


WAYS: dict[str, Callable[..., Any]] = {
    "soon": lambda loop, *args, **named: loop.call_soon(*args, **named),
    "at": lambda loop, *args, **named: loop.call_at(loop.time() - 1, *args, **named),
    "later": lambda loop, *args, **named: loop.call_later(-1.0, *args, **named),
    "later-int": lambda loop, *args, **named: loop.call_later(-1, *args, **named),
}


@pytest.fixture(params=WAYS, name="call")
def call_fixture(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a function of a loop by one of its three methods."""
    return WAYS[request.param]


def test_handles_are_asyncios_own(loop: Any, call: Callable[..., Any]) -> None:
    """Of the same class, and with everything in their slots that asyncio puts there."""
    context = contextvars.copy_context()
    handle = call(loop, nothing, 1, "two", context=context)
    plain = asyncio.Handle(nothing, (1, "two"), loop, context)
    assert type(handle) in (asyncio.Handle, asyncio.TimerHandle)
    for name in (*asyncio.Handle.__slots__[:6], "_context"):  # without __weakref__
        assert getattr(handle, name) == getattr(plain, name), name
    assert weakref.ref(handle)() is handle
    assert gc.is_tracked(handle)
    if isinstance(handle, asyncio.TimerHandle):
        assert handle._scheduled is True  # type: ignore[attr-defined]
        assert type(handle.when()) is float
        assert handle in loop._scheduled
    else:
        assert repr(plain) == repr(handle)
        assert handle is loop._ready[-1]
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    assert "cancelled" in repr(handle)
    turns(loop, 2)
    assert [] == loop._scheduled
    assert 0 == loop._timer_cancelled_count


def test_context_is_copied_unless_it_is_given(loop: Any, call: Callable[..., Any]) -> None:
    """Each callback runs in a copy of the caller's context, or in the one that it came with."""
    seen: set[str] = set()

    def look(new: str) -> None:
        seen.add(f"{new}: {variable.get()}")
        variable.set(new)

    def caller() -> None:
        variable.set("the caller's")
        call(loop, look, "first")
        call(loop, look, "second", context=None)
        call(loop, look, "third", context=given)
        variable.set("changed later")

    given = contextvars.Context()
    contextvars.copy_context().run(caller)
    turns(loop, 2)
    assert {"first: the caller's", "second: the caller's", "third: outside"} == seen
    assert "outside" == variable.get()
    assert "third" == given[variable]


def test_cancelled_callbacks_are_not_called(
    loop: Any, told: list[dict[str, Any]], call: Callable[..., Any]
) -> None:
    """Neither by an earlier callback of the same turn nor before it."""
    ran: list[str] = []
    handles: list[Any] = []
    call(loop, lambda: handles[0].cancel())
    handle = call(loop, ran.append, "cancelled in its turn")
    before = call(loop, ran.append, "cancelled before")
    before.cancel()
    handles.append(handle)
    turns(loop, 2)
    assert [] == ran
    assert [] == told, "a cancelled callback was called"


class Failed(Exception):
    """Of a callback."""


@pytest.mark.parametrize("kind", [Failed, asyncio.CancelledError, GeneratorExit])
def test_exception_is_told_in_asyncios_words(
    loop: Any, told: list[dict[str, Any]], call: Callable[..., Any], kind: type[BaseException]
) -> None:
    """The same message, keys and frames; the handle's context is back in its place by then."""
    error = kind("no")

    def fail(_: object) -> None:
        raise error

    context = contextvars.copy_context()
    handle = call(loop, fail, 1, context=context)
    call(loop, nothing)
    turns(loop, 2)
    assert 1 == len(told)
    assert {"message", "exception", "handle"} == told[0].keys()
    assert error is told[0]["exception"]
    assert handle is told[0]["handle"]
    # CPython 3.12.5 and newer name the arguments in debug mode only.
    said = told[0]["message"].removeprefix(f"Exception in callback {fail.__qualname__}(")
    assert said.startswith((f"1) at {__file__}:", f") at {__file__}:"))
    assert context is handle._context
    assert ["_run", "fail"] == [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_loop_leaves_the_rest_in_its_queue(
    loop: Any, told: list[dict[str, Any]], kind: type[BaseException]
) -> None:
    """Callbacks behind it run when the loop runs again."""
    ran: list[int] = []

    def leave() -> None:
        raise kind

    loop.call_soon(ran.append, 1)
    loop.call_soon(leave)
    loop.call_soon(ran.append, 2)
    with pytest.raises(kind):
        loop.run_forever()
    assert [1] == ran
    turns(loop)
    assert [1, 2] == ran
    assert [] == told


def test_context_that_is_entered_already(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A callback of a context that runs already is an error of that callback."""
    context = contextvars.copy_context()
    loop.call_soon(nothing, context=context)
    context.run(turns, loop)
    assert "Exception in callback nothing() at " in caplog.text
    assert "is already entered" in caplog.text
    caplog.clear()
    turns(loop)
    assert "" == caplog.text


def test_exception_handler_that_fails(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Is logged, and the loop goes on."""

    def fail(*_: object) -> None:
        raise Failed

    loop.set_exception_handler(fail)
    loop.call_soon(fail)
    turns(loop, 2)
    assert "Unhandled error in exception handler" in caplog.text


@pytest.mark.parametrize("name", ["_run", "__init__"])
def test_class_that_somebody_has_changed(
    loop: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As aiodebug and tracers do: their method runs, and asyncio's own again afterwards."""
    calls: list[object] = []
    original = getattr(asyncio.Handle, name)

    @functools.wraps(original)
    def watched(self: asyncio.Handle, *args: Any, **named: Any) -> object:
        calls.append(self)
        return original(self, *args, **named)

    ran: list[int] = []
    handles = [loop.call_soon(ran.append, 1)] if name == "_run" else []
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.Handle, name, watched)
        handles.append(loop.call_soon(ran.append, 2))
        handles.append(loop.call_at(loop.time() - 1, ran.append, 3))
        turns(loop)
    assert [1, 2, 3][-len(handles) :] == ran
    assert all(handle in calls for handle in handles)
    count = len(calls)
    loop.call_soon(ran.append, 4)
    turns(loop)
    assert 4 == ran[-1]
    assert count == len(calls)


def test_handles_of_other_classes(loop: Any) -> None:
    """What a library puts into the queue by itself runs by its own code."""
    ran: list[str] = []

    class Own(asyncio.Handle):
        def _run(self) -> None:
            ran.append("own")

    loop._ready.append(Own(nothing, (), loop))
    for cancelled in (False, True):
        loop._ready.append(
            SimpleNamespace(_cancelled=cancelled, _run=lambda: ran.append("stranger"))
        )
    turns(loop)
    assert ["own", "stranger"] == ran


@pytest.mark.parametrize("when", [-5, True, 10**400])
def test_times_that_are_no_floats(loop: Any, when: Any) -> None:
    """A time is whatever can be compared with the clock."""
    ran: list[int] = []
    handle = loop.call_at(when, ran.append, 1)
    assert when == handle.when()
    loop.call_at(-1.5, ran.append, 2)
    if when < 10:
        turns(loop, 2)
        assert [2, 1] == ran or [1, 2] == ran
    handle.cancel()
    turns(loop)


def test_calls_that_asyncio_refuses(loop: Any) -> None:
    """By the same exceptions."""
    for call in (
        loop.call_soon,
        lambda: loop.call_at(1.0),
        lambda: loop.call_later(1.0),
        lambda: loop.call_soon(nothing, contexts=None),
        lambda: loop.call_at(None, nothing),
        lambda: loop.call_later(None, nothing),
        lambda: loop.call_later("1", nothing),
    ):
        with pytest.raises(TypeError):
            call()
    assert 0 == len(loop._ready)
    assert [] == loop._scheduled


def test_callback_by_its_name(loop: Any) -> None:
    """The parameters have names, as asyncio's have."""
    ran: list[str] = []
    loop.call_soon(callback=lambda: ran.append("soon"))
    loop.call_later(delay=0, callback=lambda: ran.append("later"))
    loop.call_at(when=0.0, callback=lambda: ran.append("at"))
    turns(loop, 2)
    assert {"soon", "later", "at"} == set(ran)


def test_closed_loop_takes_nothing(call: Callable[..., Any]) -> None:
    """As asyncio says it."""
    loop = ioxide.new_event_loop(SMALL)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        call(loop, nothing)


def test_debug_mode_checks(loop: Any, call: Callable[..., Any]) -> None:
    """Callback and thread, and each handle knows where it was made."""
    loop.set_debug(True)
    with pytest.raises(TypeError, match="a callable object was expected"):
        call(loop, "no callback")
    handle = call(loop, nothing)
    # Frames of the lambdas here, and none of asyncio's.
    assert ["<lambda>"] == [handle._source_traceback[-1].name]
    handle.cancel()
    loop.set_debug(False)
    turns(loop, 2)


class Counting(Loop):
    """Has its own call_soon() and call_at()."""

    calls: list[str]

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, **named: Any
    ) -> asyncio.Handle:
        self.calls.append("soon")
        return super().call_soon(callback, *args, **named)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, **named: Any
    ) -> asyncio.TimerHandle:
        self.calls.append("at")
        return super().call_at(when, callback, *args, **named)


def test_methods_of_a_subclass_are_called(ours: Any) -> None:
    """By futures, by tasks, and by call_later()."""
    ours.__class__ = Counting
    ours.calls = []

    async def main() -> None:
        await asyncio.sleep(0.001)

    ours.run_until_complete(main())
    assert "at" in ours.calls
    assert ours.calls.count("soon") >= 3


@pytest.mark.parametrize("where", ["module", "loop", "class"])
def test_clocks_of_somebodys_own(loop: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Timers are set by the clock that they are due by, as with freezegun and CPython's tests."""
    now = 1000.0

    def clock(*_: object) -> float:
        return now

    if where == "module":
        monkeypatch.setattr(base_events, "time", SimpleNamespace(monotonic=clock))
    elif where == "loop":
        loop.time = clock
    else:
        monkeypatch.setattr(type(loop), "time", clock)
    ran: list[str] = []
    timer = loop.call_later(60, ran.append, "a minute")
    assert 1060.0 == timer.when()
    turns(loop, 2)
    assert [] == ran
    now += 60
    turns(loop, 2)
    assert ["a minute"] == ran


def test_nothing_is_kept(loop: Any, call: Callable[..., Any]) -> None:
    """Callbacks, arguments and contexts go when their handle has run, failed, or was cancelled."""

    class Thing:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def __call__(self, *_: object) -> None:
            if self.fails:
                raise Failed

    loop.set_exception_handler(nothing)
    for fails in (False, True):
        for cancelled in (False, True):
            things = [Thing(fails) for _ in range(3)]
            context = contextvars.copy_context()
            context.run(variable.set, things[2])  # type: ignore[arg-type]
            handle = call(loop, things[0], things[1], context=context)
            if cancelled:
                handle.cancel()
            del handle, context
            gone = [weakref.ref(thing) for thing in things]
            del things
            turns(loop, 3)
            gc.collect()
            assert [None] * 3 == [one() for one in gone]


def test_references_are_balanced(ours: Any) -> None:
    """None of what a handle refers to loses or gains a reference."""
    context, argument = contextvars.copy_context(), object()

    def fail(_: object) -> None:
        raise Failed

    def counts() -> list[int]:
        return [sys.getrefcount(one) for one in (context, argument, nothing, fail, ours)]

    ours.set_exception_handler(nothing)
    for number in range(3):
        for callback in (nothing, fail):
            for _ in range(100):
                ours.call_soon(callback, argument, context=context)
                ours.call_later(0.0, callback, argument, context=context)
                ours.call_later(0.0, callback, argument, context=context).cancel()
        turns(ours, 3)
        gc.collect()
        if number == 0:
            before = counts()
    assert before == counts()


def test_a_nested_call_is_one_turn(ours: Any) -> None:
    """_run_once() in a callback, as nested loops do it, comes back after its turn, in which it has
    run what was ready behind that callback, too."""
    ran: list[str] = []

    def nested() -> None:
        ours.call_soon(ran.append, "turn")
        ours._run_once()
        ran.append("back")
        ours.stop()

    def give_up() -> None:
        ran.append("nothing came back")
        ours.stop()

    ours.call_soon(nested)
    ours.call_soon(ran.append, "behind it")
    limit = threading.Timer(5, ours.call_soon_threadsafe, (give_up,))
    limit.start()
    ours.run_forever()
    limit.cancel()
    limit.join()
    assert ["behind it", "turn", "back"] == ran


def test_run_once_is_one_turn(loop: Any) -> None:
    """Whoever calls it himself has control again after each."""
    ran: list[int] = []
    for number in range(3):
        loop.call_soon(ran.append, number)
        loop._run_once()
        assert number == ran[-1]


@pytest.mark.parametrize("where", ["class", "instance"])
def test_run_once_that_is_replaced_meanwhile(
    loop: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As nest_asyncio does it in a loop that runs: the next turn is theirs."""
    theirs: list[int] = []
    original = type(loop)._run_once

    def own(self: Any) -> None:
        theirs.append(1)
        original(self)

    def replace() -> None:
        if where == "class":
            monkeypatch.setattr(type(loop), "_run_once", own)
        else:
            monkeypatch.setattr(loop, "_run_once", functools.partial(own, loop))
        loop.call_soon(loop.call_soon, loop.stop)

    loop.call_soon(replace)
    loop.run_forever()
    assert 2 == len(theirs)


def test_interrupt_ends_a_loop_that_runs_no_python_code(ours: Any) -> None:
    """Signals are looked at in every turn."""
    again: Any = functools.partial(nothing)
    again.__setstate__((ours.call_soon, (again,), {}, None))
    ours.call_soon(again)  # calls itself for ever
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ours.run_forever()
    timer.join()
