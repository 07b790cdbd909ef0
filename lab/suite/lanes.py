# SPDX-License-Identifier: MIT
"""Several sessions side by side, a thread each, that share one run's tests.

An emulated guest keeps one processor busy, so a machine with two is done in half the time with two
guests.  The threads only run tests; what they have to say comes out of `Lanes.events`, in the
thread that asks, which alone judges, prints and keeps the book.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Self

from ..errors import LabError
from ..remote.losses import RunOver
from ..wishes import Wishes
from .plan import Lab, Listener, Outcome, Plan, Visit
from .session import Common, Session

NEIGHBOURS = 8
"""So many tests of one file go to a lane together: they may share what is dear to set up."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A lane enters a phase that is not a test; empty text: back to tests."""

    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A lane is about to run this test."""

    name: str


@dataclass(frozen=True, slots=True)
class Ran:
    """What came home about a test, after so many seconds."""

    name: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A lane ran its last test, and its guest is gone; `error` is what ended it before its time."""

    error: BaseException | None


Event = Phase | Begun | Visit | Ran | Ended


class Lanes:
    """Runs a plan's tests in as many guests at once as it is told.

    Leaving the block ends what still runs, with every guest.
    """

    def __init__(self, lab: Lab, plan: Plan, *, guests: int) -> None:
        self.common = Common()
        self.interrupt_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._shares = _Shares(plan, guests)
        self._events: queue.Queue[tuple[_Lane, Event]] = queue.Queue()
        self.stopped = False
        """Whether no test is to be begun any more."""
        self.finishing = True
        """Whether a lane without tests asks its pytest for the last word."""
        self.lanes = [_Lane(self, lab, plan, number) for number in range(1, guests + 1)]

    @property
    def sessions(self) -> Sequence[Session]:
        """The lanes' sessions, for what they say of themselves once their lane has ended."""
        return [lane.session for lane in self.lanes]

    def __enter__(self) -> Self:
        for lane in self.lanes:
            lane.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.interrupt()
        try:
            for lane in self.lanes:
                lane.join()
        finally:
            # A second Ctrl-C leaves a lane that still looks at the descriptor: it stays open.
            if not any(lane.is_alive() for lane in self.lanes):
                os.close(self.interrupt_fd)

    def events(self, listener: Listener) -> Iterator[Begun | Visit | Ran | RunOver]:
        """What happens, until the last lane has ended; phases and silence are the listener's.

        A lane begins no test before whoever goes through this has come back from its last one: a
        run that is to end at the first failure ends there. A RunOver is yielded, not raised: what
        the other lanes are at still counts. Raises what a lane ended with if that was anything
        else.
        """
        running = len(self.lanes)
        while running:
            try:
                lane, event = self._events.get(timeout=1.0)
            except queue.Empty:
                listener.tick()
                continue
            match event:
                case Phase(text):
                    listener.phase(text)
                case Ended(error):
                    running -= 1
                    if isinstance(error, RunOver):
                        yield error
                    elif isinstance(error, LabError):
                        yield RunOver(error.message, hint=error.hint)
                    elif error is not None:
                        raise error
                case Begun():
                    yield event
                case Visit():
                    yield event
                    lane.returned.release()
                case Ran():
                    yield event
                    lane.judged.release()

    def left(self) -> Iterator[Begun | Ran]:
        """What was said and not yet asked for, once all lanes are interrupted; nothing is waited
        for longer than that takes."""
        for lane in self.lanes:
            lane.join()
        while not self._events.empty():
            _, event = self._events.get_nowait()
            if isinstance(event, Begun | Ran):
                yield event

    def stop(self, *, finish: bool) -> None:
        """No test is begun any more. With `finish` each pytest is asked for its last word."""
        self.finishing = self.finishing and finish
        self.stopped = True

    def interrupt(self) -> None:
        """Whatever a lane waits for, its wait is over."""
        self.stop(finish=False)
        os.eventfd_write(self.interrupt_fd, 1)
        for lane in self.lanes:
            lane.judged.release()
            lane.returned.release()

    # -- for the lanes -----------------------------------------------------------------------

    def take(self) -> Sequence[str]:
        """The next tests for a lane; none when there are no more."""
        return self._shares.take()

    def tell(self, lane: _Lane, event: Event) -> None:
        """Say something to whoever goes through `events`."""
        self._events.put((lane, event))


class _Lane(threading.Thread):
    """One session and the tests it was given."""

    def __init__(self, lanes: Lanes, lab: Lab, plan: Plan, number: int) -> None:
        super().__init__(name=f"lane-{number}")
        self._lanes = lanes
        self._mine: deque[str] = deque()
        self.judged = threading.Semaphore(0)
        """Released once for each verdict that is in the book."""
        self.returned = threading.Semaphore(0)
        """Released once for each test that the host has run with our guest."""
        self._head = f"lane {number}: " if number > 1 else ""
        self._plan = plan
        self.session = Session(lab, plan, self, lanes.common, interrupt=lanes.interrupt_fd)

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self._run()
            if self._lanes.finishing:
                self.phase("shutting the guest down")
                self.session.finish()
        except BaseException as caught:
            error = caught  # raised again in the main thread
        try:
            self.session.close()
        except BaseException as caught:
            error = error or caught
        self._lanes.tell(self, Ended(error))

    def _run(self) -> None:
        while (name := self._next()) is not None:
            self.session.prepare(name)
            if self._lanes.stopped:
                return  # while its guest was booting
            self._lanes.tell(self, Begun(name))
            began = time.monotonic()
            # The guest is told of the test behind this one, to keep what both need.
            outcome = self.session.run(name, self._following(name))
            self._lanes.tell(self, Ran(name, outcome, time.monotonic() - began))
            if why := self.session.given_up:
                raise RunOver(why)
            self.judged.acquire()

    def _next(self) -> str | None:
        if len(self._mine) < 2:
            self._mine += self._lanes.take()
        return self._mine.popleft() if self._mine and not self._lanes.stopped else None

    def _following(self, name: str) -> str | None:
        """The next test, if it is one for the same guest."""
        following = self._mine[0] if self._mine else None
        if following is None or self._plan.wishes_of(following) != self._plan.wishes_of(name):
            return None
        return following

    # -- what the session tells while it is at something --------------------------------------

    def phase(self, text: str) -> None:
        """As `Listener.phase`."""
        self._lanes.tell(self, Phase(self._head + text if text else ""))

    def tick(self) -> None:
        """As `Listener.tick`: the main thread has a clock of its own, so all that is to be done is
        to see whether it wants us to go on. Raises KeyboardInterrupt."""
        if select.select([self._lanes.interrupt_fd], [], [], 0)[0]:
            raise KeyboardInterrupt

    def visit(self, visit: Visit) -> None:
        """As `Caller.visit`: pytest's own thread runs it, and the guest is not ours meanwhile."""
        self._lanes.tell(self, visit)
        self.returned.acquire()
        if not visit.over:
            raise KeyboardInterrupt


class _Shares:
    """Tests in their order, handed out in runs of neighbours; behind them, together, those that
    ask for the same other guest, so that it is booted once."""

    def __init__(self, plan: Plan, lanes: int) -> None:
        usual = [name for name in plan.selected if name not in plan.own_wishes]
        files = (list(group) for _, group in groupby(usual, key=lambda n: n.split("::")[0]))
        size = NEIGHBOURS if lanes > 1 else max(1, len(usual))
        self._shares: deque[Sequence[str]] = deque(
            share[first : first + size] for share in files for first in range(0, len(share), size)
        )
        others: dict[Wishes, list[str]] = {}
        for name in plan.selected:
            if name in plan.own_wishes:
                others.setdefault(plan.own_wishes[name], []).append(name)
        self._shares += others.values()
        self._lock = threading.Lock()

    def take(self) -> Sequence[str]:
        with self._lock:
            return self._shares.popleft() if self._shares else ()
