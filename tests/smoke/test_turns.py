# SPDX-License-Identifier: MIT
"""Turns of a loop: their queue, nested turns, signals between callbacks, as on asyncio's loop."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import threading
import time
from typing import Any

import pytest

from tests.smoke.scheduling import loop_fixture, nothing, ours_fixture, turns

__all__ = ["loop_fixture", "ours_fixture"]  # fixtures


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
    """A program that calls _run_once() itself regains control after each turn."""
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
