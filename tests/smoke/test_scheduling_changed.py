# SPDX-License-Identifier: MIT
"""Loops, handles and clocks that a library or a subclass has changed, as on asyncio's loop."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from asyncio import base_events
from types import SimpleNamespace
from typing import Any

import pytest

from ioxide._asyncio.loop import Loop
from tests.smoke.scheduling import loop_fixture, nothing, ours_fixture, turns

__all__ = ["loop_fixture", "ours_fixture"]  # fixtures


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
