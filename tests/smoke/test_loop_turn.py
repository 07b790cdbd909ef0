# SPDX-License-Identifier: MIT
"""One turn of the loop: timers, hooks, and what the queues hold behind it, as on asyncio's own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import selectors
import socket
import threading
import time
import weakref
from asyncio import base_events
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ioxide._asyncio.loop import Loop
from tests.smoke.scheduling import loop_fixture, nothing, ours_fixture, turns

__all__ = ["loop_fixture", "ours_fixture"]  # fixtures


@pytest.mark.parametrize(
    ("timers", "cancelled", "left"),
    [
        pytest.param(5, slice(None), 0, id="head"),
        # asyncio goes over the whole heap where more than half of more than 100 are cancelled.
        pytest.param(160, slice(60, None), 60, id="many"),
        pytest.param(160, slice(90, None), 160, id="few"),
    ],
)
def test_cancelled_timers_are_forgotten(
    loop: Any, timers: int, cancelled: slice, left: int
) -> None:
    """Those at the head of the heap, and those that are most of it."""
    handles = [loop.call_later(1000 + number, nothing) for number in range(timers)]
    for handle in handles[cancelled]:
        handle.cancel()
    turns(loop, 1)
    assert left == len(loop._scheduled)
    assert left - len([*filter(lambda handle: not handle.cancelled(), handles)]) == (
        loop._timer_cancelled_count
    )
    assert all(handle._scheduled is (handle in loop._scheduled) for handle in handles)
    assert loop._scheduled == sorted(loop._scheduled) or loop._scheduled[0] == min(loop._scheduled)


def test_timers_run_in_their_order(loop: Any) -> None:
    """By their time, whatever the order in which they were set; a cancelled one does not run."""
    ran: list[int] = []
    now = loop.time()
    handles = [loop.call_at(now - 1 + step / 1000, ran.append, step) for step in (3, 1, 2, 5, 4)]
    handles[2].cancel()
    turns(loop, 2)
    assert [1, 3, 4, 5] == ran
    assert [] == loop._scheduled


class Timer(asyncio.Protocol):
    """Sets a timer that is due at once, and stops the loop after this turn."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.order: list[str] = []

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio names it
        self.loop.call_at(self.loop.time() - 1, self.order.append, "timer")
        self.loop.call_soon(self.order.append, "callback")
        self.loop.call_soon(self.loop.stop)


def test_a_timer_that_is_due_runs_in_the_same_turn(loop: Any) -> None:
    """Behind what the batch has scheduled."""
    protocol = Timer(loop)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = loop.create_connection(lambda: protocol, *listener.getsockname())
        transport, _ = loop.run_until_complete(connecting)
        peer = listener.accept()[0]
    with peer:
        loop.run_until_complete(asyncio.sleep(0.01))
        peer.sendall(b"x")
        loop.run_forever()
        order = [*protocol.order]
        transport.close()
        turns(loop, 2)
    assert ["callback", "timer"] == order, "a timer ran a turn late"


class Mover(asyncio.Protocol):
    """Moves the clock of its loop by a day with each piece."""

    def __init__(self) -> None:
        self.moved = 0

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio names it
        self.moved += 86400


@pytest.mark.parametrize("where", ["loop", "class", "module"])
def test_a_clock_that_a_protocol_moves(
    loop: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Timers go by the loop's time(), whoever has put it there."""
    protocol = Mover()

    def clock(*_: object) -> float:
        return time.monotonic() + protocol.moved

    if where == "loop":
        loop.time = clock
    elif where == "class":
        monkeypatch.setattr(type(loop), "time", clock)
    else:
        monkeypatch.setattr(base_events, "time", SimpleNamespace(monotonic=clock))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = loop.create_connection(lambda: protocol, *listener.getsockname())
        transport, _ = loop.run_until_complete(connecting)
        peer = listener.accept()[0]
    ran: list[str] = []

    def end(what: str) -> None:
        ran.append(what)
        loop.stop()

    hour = loop.call_later(3600, end, "hour")
    with peer:
        threading.Timer(0.05, peer.sendall, [b"x"]).start()  # while the loop waits
        limit = threading.Timer(3, loop.call_soon_threadsafe, [end, "nothing for so long"])
        limit.start()
        loop.run_forever()
        limit.cancel()
        hour.cancel()
        transport.close()
        turns(loop, 2)
    assert ["hour"] == ran, "the timer is late"


def test_a_loop_that_is_stopped_runs_its_whole_turn(loop: Any) -> None:
    """What was ready before stop() is run, what it makes ready is not."""
    ran: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "this turn")
    loop.call_soon(loop.call_soon, ran.append, "next turn")
    loop.run_forever()
    assert ["this turn"] == ran
    turns(loop, 1)
    assert ["this turn", "next turn"] == ran


def test_an_exception_keeps_no_handle(loop: Any) -> None:
    """The frame of a turn that an exception leaves does not keep the callback before it."""

    class Callback:
        def __call__(self) -> None:
            """Does nothing."""

    def leave() -> None:
        raise SystemExit

    callback = Callback()
    gone = weakref.ref(callback)
    loop.call_soon(callback)
    loop.call_soon(leave)
    del callback
    with pytest.raises(SystemExit) as raised:
        loop.run_forever()
    gc.collect()
    assert gone() is None
    assert raised.value.__traceback__ is not None


@pytest.mark.parametrize("by", ["instance", "class", "selector"])
def test_a_hook_of_somebodys_own_is_called(
    ours: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A `_process_events()` or a selector that was put into a loop sees each turn."""
    seen: list[object] = []
    original = ours._process_events
    if by == "instance":
        monkeypatch.setattr(ours, "_process_events", lambda events: seen.append(original(events)))
    elif by == "class":
        own = Loop._process_events

        def hook(self: Loop, events: object) -> None:
            seen.append(own(self, events))

        monkeypatch.setattr(type(ours), "_process_events", hook)
    else:

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(ours._ring_selector, name)

            def select(self, timeout: float | None = None) -> list[Any]:
                seen.append(timeout)
                found: list[tuple[selectors.SelectorKey, int]] = ours._ring_selector.select(timeout)
                return found

        monkeypatch.setattr(ours, "_selector", Counting())
    for _ in range(3):
        ours.call_later(0.001, ours.stop)  # nothing is ready meanwhile
        ours.run_forever()
    assert len(seen) >= 3, "the hook was passed by"


class Once(asyncio.Protocol):
    """Does something when the first byte comes, and counts the bytes."""

    transport: Any

    def __init__(self, what: Callable[[], object]) -> None:
        self.what = what
        self.seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += len(data)
        if self.seen == 1:
            self.what()


@contextlib.contextmanager
def connected(loop: Any, protocol: Once) -> Iterator[socket.socket]:
    """The other end of a connection of `protocol`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = loop.create_connection(lambda: protocol, *listener.getsockname())
        loop.run_until_complete(connecting)
        peer = listener.accept()[0]
    with peer:
        yield peer
        protocol.transport.abort()
        turns(loop, 2)


@pytest.mark.parametrize("by", ["stop", "timer", "callback", "debug"])
def test_what_ends_the_core_s_own_ticks(ours: Any, by: str) -> None:
    """While nothing else happens, the core does not wait for the next event."""

    def debug() -> None:
        select = ours._ring_selector.select

        def stopping(_: float | None = None) -> object:
            ours.call_soon(ours.stop)
            return select(0)

        ours._ring_selector.select = stopping  # asyncio's own turn calls it
        ours._debug = True

    what: dict[str, Callable[[], object]] = {
        "stop": ours.stop,
        "timer": lambda: ours.call_later(0.001, ours.stop),
        "callback": lambda: ours.call_soon(ours.stop),
        "debug": debug,
    }
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        ours.stop()

    timer = threading.Timer(2, ours.call_soon_threadsafe, (give_up,))
    with connected(ours, Once(what[by])) as peer:
        peer.sendall(b"x")
        timer.start()
        ours.run_forever()
        timer.cancel()
        timer.join()
        assert [] == late, "the loop went on"


def test_events_put_no_timer_off(ours: Any) -> None:
    """A timer is due at its time, however many events come before it."""
    count = 60
    protocol = Once(nothing)
    ended = threading.Event()

    def send() -> None:
        for _ in range(count):
            peer.sendall(b"x")
            if ended.wait(0.05):
                return

    with connected(ours, protocol) as peer:
        sender = threading.Thread(target=send)
        ours.call_later(0.3, ours.stop)
        sender.start()
        ours.run_forever()
        seen = protocol.seen
        ended.set()
        sender.join()
        assert seen < count, "the timer came only when no event did any more"
