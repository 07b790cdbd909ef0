# SPDX-License-Identifier: MIT
"""call_soon(), call_at(), call_later() and the handles that they queue, as on asyncio's loop."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
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


@pytest.mark.parametrize("name", ["call_soon", "_call_soon", "call_at", "call_later"])
def test_base_class_that_somebody_has_changed(
    loop: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Their method is called, and asyncio's own again afterwards."""
    calls: list[object] = []
    original = getattr(base_events.BaseEventLoop, name)

    @functools.wraps(original)
    def watched(self: Any, *args: Any, **named: Any) -> object:
        calls.append(args)
        return original(self, *args, **named)

    def call_all() -> None:
        for handle in (
            loop.call_soon(nothing),
            loop.call_at(loop.time() + 100, nothing),
            loop.call_later(100, nothing),
        ):
            handle.cancel()

    call_all()
    with monkeypatch.context() as patch:
        patch.setattr(base_events.BaseEventLoop, name, watched)
        call_all()
    count = len(calls)
    assert 1 <= count <= 2  # asyncio's call_later() calls call_at()
    call_all()
    assert count == len(calls)
    turns(loop)


def test_method_of_the_loop_alone(loop: Any) -> None:
    """A _call_soon() that one loop has is called."""
    calls: list[object] = []
    original = loop._call_soon

    def own(callback: Any, args: Any, context: Any) -> Any:
        calls.append(callback)
        return original(callback, args, context)

    loop._call_soon = own
    loop.call_soon(nothing)
    del loop._call_soon
    assert [nothing] == calls
    turns(loop)


@pytest.mark.parametrize("name", ["Handle", "TimerHandle"])
def test_class_that_somebody_has_replaced(
    loop: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """asyncio.events names another class: handles are instances of it."""
    original = getattr(asyncio, name)
    own = type("Own", (original,), {"__slots__": ()})
    monkeypatch.setattr(asyncio.events, name, own)
    if name == "Handle":
        assert isinstance(loop.call_soon(nothing), own)
    else:
        assert isinstance(loop.call_at(loop.time() - 1, nothing), own)
        assert isinstance(loop.call_later(-1, nothing), own)
    turns(loop, 2)
    assert [] == loop._scheduled


@pytest.mark.parametrize(
    "program",
    [
        """
import asyncio
calls = []
run = asyncio.Handle._run
def traced(self):
    calls.append(self)
    run(self)
asyncio.Handle._run = traced
import ioxide
loop = ioxide.new_event_loop()
loop.call_soon(print)
loop.call_soon(loop.stop)
loop.run_forever()
assert 2 == len(calls), calls
""",
        """
import asyncio, functools
original = asyncio.BaseEventLoop.time
asyncio.BaseEventLoop.time = functools.wraps(original)(lambda self: 1000.0)
import ioxide
loop = ioxide.new_event_loop()
when = loop.call_later(5, print).when()
assert 1005.0 == when, f"it is due at {when}"
""",
        """
import asyncio, functools
calls = []
original = asyncio.BaseEventLoop.call_soon
@functools.wraps(original)
def watched(self, *args, **named):
    calls.append(args)
    return original(self, *args, **named)
asyncio.BaseEventLoop.call_soon = watched
import ioxide
loop = ioxide.new_event_loop()
calls.clear()
loop.call_soon(print)
assert 1 == len(calls), calls
""",
    ],
    ids=["handle", "clock", "call_soon"],
)
def test_asyncio_that_was_changed_before(program: str) -> None:
    """What a library has put into asyncio before ioxide was imported is called, too."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr


class Beside(asyncio.SelectorEventLoop):
    """Another loop class with a call_soon() of its own."""

    calls: list[str]

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, **named: Any
    ) -> asyncio.Handle:
        self.calls.append("soon")
        return super().call_soon(callback, *args, **named)


class Both(Loop, Beside):
    """It comes behind ours among the bases."""


def test_call_soon_of_a_class_beside_ours_is_called(ours: Any) -> None:
    """As super() finds it."""
    ours.__class__ = Both
    ours.calls = []
    ours.call_soon(nothing)
    assert ["soon"] == ours.calls
    turns(ours)


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


def test_whole_numbers_of_a_clock_stay_whole(loop: Any) -> None:
    """A time is what the loop's clock and the delay add up to, without rounding."""
    loop.time = lambda: 10**17 + 1
    handle = loop.call_later(2, nothing)
    assert (10**17 + 3, int) == (handle.when(), type(handle.when()))
    handle.cancel()
    turns(loop)


def test_queue_that_a_callback_replaces(loop: Any) -> None:
    """The rest of the turn is taken from the new one."""
    ran: list[str] = []

    def replace() -> None:
        loop._ready = type(loop._ready)()
        loop.call_soon(ran.append, "new")
        loop.call_soon(loop.stop)

    loop.call_soon(replace)
    for _ in range(2):
        loop.call_soon(ran.append, "old")
    loop.run_forever()
    assert ["new"] == ran


def test_signal_between_callbacks_that_are_no_python_code(loop: Any) -> None:
    """Its handler runs before the next one."""
    ran: list[int] = []
    loop.call_soon(int)  # behind it the loop has just looked at all that Python code looks at
    # os.kill() and signal.raise_signal() would run the handler themselves.
    loop.call_soon(ctypes.CDLL(None)["raise"], signal.SIGINT)
    for number in range(5):
        loop.call_soon(ran.append, number)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert [] == ran
    turns(loop)
    assert [0, 1, 2, 3, 4] == ran


def test_other_threads_run_between_callbacks_that_are_no_python_code(loop: Any) -> None:
    """A turn of functions in C does not keep the GIL."""
    order: list[str] = []
    lock = threading.Lock()
    lock.acquire()

    def other() -> None:
        lock.acquire()
        order.append("thread")

    thread = threading.Thread(target=other)
    thread.start()
    loop.call_soon(lock.release)
    for _ in range(30):
        loop.call_soon(sum, range(1_000_000))  # some 20 ms each
    loop.call_soon(order.append, "end of the turn")
    turns(loop)
    thread.join()
    assert ["thread", "end of the turn"] == order


def test_timers_run_once_where_a_post_runs_a_nested_turn(ours: Any) -> None:
    """The nested turn makes another heap of the timers; the turn around it goes on with that."""
    ran: list[str] = []

    def post() -> None:
        timers = [ours.call_at(ours.time() + 100 + number, nothing) for number in range(300)]
        for timer in timers[:250]:
            timer.cancel()
        ours.call_soon(nothing)
        ours._run_once()
        time.sleep(0.03)
        ours.call_soon(nothing)

    ours.call_later(0.02, ran.append, "timer")
    ours.driver.post(post)
    ours.call_later(0.2, ours.stop)
    ours.run_forever()
    assert ["timer"] == ran


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
