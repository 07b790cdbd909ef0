# SPDX-License-Identifier: MIT
"""call_soon(), call_at(), call_later() and the handles that they queue, as on asyncio's loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import traceback
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import ioxide
from tests.smoke.scheduling import (
    Failed,
    call_fixture,
    loop_fixture,
    nothing,
    ours_fixture,
    told_fixture,
    turns,
    variable,
)
from tests.support import SMALL

__all__ = ["call_fixture", "loop_fixture", "ours_fixture", "told_fixture"]  # fixtures


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


@pytest.mark.parametrize("kind", [Failed, KeyboardInterrupt, SystemExit])
def test_callback_that_cancels_its_own_handle_and_fails(
    loop: Any, told: list[dict[str, Any]], call: Callable[..., Any], kind: type[BaseException]
) -> None:
    """As a reader does that removes itself: its exception is told, or ends the loop."""
    error = kind("no")

    def fail(_: object) -> None:
        handle.cancel()
        raise error

    context = contextvars.copy_context()
    handle = call(loop, fail, 1, context=context)
    if kind is Failed:
        turns(loop, 2)
        assert [error] == [one["exception"] for one in told]
        assert told[0]["message"].startswith("Exception in callback None")
    else:
        with pytest.raises(kind, match="no"):
            turns(loop, 2)
        assert [] == told
    assert context is handle._context
    assert (None, None) == (handle._callback, handle._args)


def test_report_that_is_interrupted(ours: Any, call: Callable[..., Any]) -> None:
    """Where _run() is left before it reports, the handle has its context and arguments again."""

    def fail(_: object) -> None:
        raise Failed

    def interrupt(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is asyncio.Handle._run.__code__:
            raise KeyboardInterrupt

    context = contextvars.copy_context()
    handle = call(ours, fail, 1, context=context)
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            turns(ours, 2)
    finally:
        sys.setprofile(None)
    assert context is handle._context
    assert (1,) == handle._args


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
