# SPDX-License-Identifier: MIT
"""Several guests side by side, a thread each, that share one run's tests, on one or more kernels.

An emulated guest keeps one processor busy, so a machine with two is done in half the time with two
guests.  The threads only run tests; what they have to say comes out of `Lanes.events`, in the
thread that asks, which alone judges, prints and keeps the books.
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
from types import TracebackType
from typing import Protocol, Self

from ..errors import LabError
from ..remote.losses import RunOver
from .common import Common
from .plan import Lab, Outcome, Plan, Visit
from .session import Session
from .shares import Shares
from .times import estimated
from .turn import Turn

WORTH_A_GUEST = 50
"""With so many tests more, one more guest is up and through its share before one alone would be
through all of them."""
WORTH_A_GUEST_S = 120.0
"""Or with tests that took so many seconds the last time: an emulated guest is up and has collected
in a quarter of that."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A lane enters a phase that is not a test; empty text: back to tests."""

    work: Work
    text: str
    what: str
    """The same without whose phase it is."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A lane is about to run this test."""

    work: Work
    turn: Turn
    lane: int


@dataclass(frozen=True, slots=True)
class Lent:
    """The host is to run a test, and has the lane's guest meanwhile."""

    work: Work
    visit: Visit


@dataclass(frozen=True, slots=True)
class Ran:
    """What came home about a test, after so many seconds."""

    work: Work
    turn: Turn
    outcome: Outcome
    seconds: float
    lane: int


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more can be run of this work, and the lane's guest is gone."""

    work: Work
    why: RunOver


@dataclass(frozen=True, slots=True)
class Ended:
    """A lane ran its last test, and its guest is gone; `error` is what ended it before its time."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class CutOff:
    """What there is of a test that was interrupted."""

    work: Work
    turn: Turn
    outcome: Outcome


Event = Phase | Begun | Lent | Ran | CutOff | Over | Ended


class Watcher(Protocol):
    """Who wants to know what the lanes are at, beside their tests."""

    def phase(self, work: Work, lane: int, text: str, what: str) -> None:
        """A lane enters a phase that is not a test, see `Phase`."""

    def gone(self, work: Work, lane: int) -> None:
        """A lane has no guest any more, and will have none for this work."""

    def tick(self) -> None:
        """Time passes and nothing is said; called about once a second."""


class Work:
    """The tests of one kernel, and what the lanes that run them share."""

    def __init__(self, lab: Lab, plan: Plan, *, label: str = "") -> None:
        """`label` begins what is told of its phases; empty where there is no other work."""
        self.lab, self.plan, self.label = lab, plan, label
        self.common = Common()
        self.sessions: list[Session] = []
        """Those of all lanes that came to it, for what they say of themselves afterwards."""
        self.stopped = False
        """Whether no test of it is to be begun any more."""
        self.finishing = True
        """Whether a lane without tests asks its pytest for the last word."""
        self.taken = False
        """Whether a lane has come to it."""
        self._shares: Shares | None = None

    def share(self, *, lanes: int) -> None:
        """Cut the tests up for so many lanes at once."""
        self._shares = Shares(self.plan, lanes)

    def take(self) -> Sequence[Turn]:
        """The next tests for a lane; none when there are no more."""
        assert self._shares is not None
        return () if self.stopped else self._shares.take()

    def left(self) -> int:
        """How many tests no lane has taken yet."""
        return 0 if self.stopped or self._shares is None else self._shares.left()

    def seconds_left(self) -> float:
        """How long these are expected to take; infinite if nothing is known of that."""
        return 0.0 if self.stopped or self._shares is None else self._shares.seconds_left()

    def worth_a_guest(self) -> bool:
        """Whether a guest more would be of use with what is left."""
        seconds = self.seconds_left()
        known = seconds < float("inf")
        return self.left() >= WORTH_A_GUEST or (known and seconds >= WORTH_A_GUEST_S)

    def stop(self, *, finish: bool) -> None:
        """No test of it is begun any more. With `finish` each pytest is asked for its last word."""
        self.finishing = self.finishing and finish
        self.stopped = True


class Lanes:
    """Runs the tests of one or more kernels in as many guests at once as it is told.

    Leaving the block ends what still runs, with every guest.
    """

    def __init__(self, works: Sequence[Work], *, guests: int) -> None:
        """The first work is the first to be begun; `guests` are all that live at once."""
        self.interrupt_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.works = works
        self._events: queue.Queue[tuple[_Lane, Event]] = queue.Queue()
        self._choosing = threading.Lock()
        first = _dealt(works, guests)
        for work in works:
            # A lane that another kernel leaves may come here, too.
            work.share(lanes=guests)
        self.lanes = [_Lane(self, number, work) for number, work in enumerate(first, 1)]

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

    def events(self, watcher: Watcher) -> Iterator[Begun | Lent | Ran | Over]:
        """What happens, until the last lane has ended; phases and silence are the watcher's.

        A lane begins no test before whoever goes through this has come back from its last one: a
        run that is to end at the first failure ends there. What ends a work is yielded, not raised:
        what the other lanes are at still counts. Raises what a lane ended with if that was anything
        else.
        """
        running = len(self.lanes)
        while running:
            try:
                lane, event = self._events.get(timeout=1.0)
            except queue.Empty:
                watcher.tick()
                continue
            match event:
                case Phase(work, text, what):
                    watcher.phase(work, lane.number, text, what)
                case Ended(error):
                    running -= 1
                    watcher.gone(lane.work, lane.number)
                    if error is not None:
                        raise error
                case Begun():
                    yield event
                case Lent():
                    yield event
                    lane.returned.release()
                case Ran() | Over():
                    yield event
                    lane.judged.release()

    def left(self) -> Iterator[Begun | Ran | CutOff]:
        """What was said and not yet asked for, once all lanes are interrupted; nothing is waited
        for longer than that takes."""
        for lane in self.lanes:
            lane.join()
        while not self._events.empty():
            _, event = self._events.get_nowait()
            if isinstance(event, Begun | Ran | CutOff):
                yield event

    def stop(self, *, finish: bool) -> None:
        """As `Work.stop`, for all."""
        for work in self.works:
            work.stop(finish=finish)

    def interrupt(self) -> None:
        """Whatever a lane waits for, its wait is over."""
        self.stop(finish=False)
        os.eventfd_write(self.interrupt_fd, 1)
        for lane in self.lanes:
            lane.judged.release()
            lane.returned.release()

    # -- for the lanes -----------------------------------------------------------------------

    def another(self) -> Work | None:
        """The work that a lane without any goes to: one that nobody has begun, or the one with most
        left to do, if that is worth a guest more; None if there is no such work."""
        with self._choosing:
            for work in self.works:
                if not work.taken and not work.stopped:
                    work.taken = True
                    return work
            worth = [work for work in self.works if work.worth_a_guest()]
            return max(worth, key=lambda w: (w.seconds_left(), w.left()), default=None)

    def tell(self, lane: _Lane, event: Event) -> None:
        """Say something to whoever goes through `events`."""
        self._events.put((lane, event))


def _dealt(works: Sequence[Work], guests: int) -> list[Work]:
    """Which work each lane begins with: one each, and the lanes that are left go where most is to
    be done for one lane."""

    def load(work: Work) -> tuple[float, float]:
        lanes = first.count(work)
        seconds = estimated(work.plan.selected, work.plan.seconds)
        return work.plan.times * seconds / lanes, len(work.plan.selected) / lanes

    first = list(works[:guests])
    while len(first) < guests:
        first.append(max(works, key=load))
    for work in first:
        work.taken = True
    return first


class _Lane(threading.Thread):
    """One guest at a time, and the tests it was given."""

    def __init__(self, lanes: Lanes, number: int, first: Work) -> None:
        super().__init__(name=f"lane-{number}")
        self._lanes = lanes
        self._mine: deque[Turn] = deque()
        self.judged = threading.Semaphore(0)
        """Released once for each verdict that is in the book."""
        self.returned = threading.Semaphore(0)
        """Released once for each test that the host has run with our guest."""
        self.number, self._first, self._head = number, first, ""
        self.work = first
        """What it serves, or has served last."""

    def run(self) -> None:
        error: BaseException | None = None
        try:
            work: Work | None = self._first
            while work is not None:
                self._serve(work)
                work = self._lanes.another()
        except BaseException as caught:
            error = caught  # raised again in the main thread
        self._lanes.tell(self, Ended(error))

    def _serve(self, work: Work) -> None:
        """Run tests of this work until there are none left, in a session of its own."""
        who = [f"lane {self.number}"] * (self.number > 1) + [work.label] * bool(work.label)
        self._head = "".join(f"{word}: " for word in who)
        self._mine.clear()
        self.work = work
        session = Session(
            work.lab, work.plan, self, work.common, interrupt=self._lanes.interrupt_fd
        )
        work.sessions.append(session)
        error: BaseException | None = None
        try:
            self._run(work, session)
            if work.finishing:
                self.phase("shutting the guest down")
                session.finish()
        except BaseException as caught:
            error = caught
        try:
            session.close()
        except BaseException as caught:
            error = error or caught
        if isinstance(error, RunOver):
            self._lanes.tell(self, Over(work, error))
        elif isinstance(error, LabError):
            self._lanes.tell(self, Over(work, RunOver(error.message, hint=error.hint)))
        elif isinstance(error, OSError):  # of this machine: a full disk, no descriptor left
            where = f"{error.filename}: " if error.filename else ""
            self._lanes.tell(self, Over(work, RunOver(f"{where}{error.strerror or error}")))
        elif error is not None:
            raise error
        if error is not None:
            self.judged.acquire()  # until it is known that nothing more is to be run of this

    def _run(self, work: Work, session: Session) -> None:
        while (turn := self._next(work)) is not None:
            session.prepare(turn.name)
            if work.stopped:
                return  # while its guest was booting
            self._lanes.tell(self, Begun(work, turn, self.number))
            began = time.monotonic()
            # The guest is told of the test behind this one, to keep what both need.
            try:
                outcome = session.run(turn.name, self._following(work, turn.name))
            except KeyboardInterrupt:
                if session.cut_off is not None:
                    self._lanes.tell(self, CutOff(work, turn, session.cut_off))
                raise
            seconds = time.monotonic() - began
            self._lanes.tell(self, Ran(work, turn, outcome, seconds, self.number))
            if why := session.given_up:
                raise RunOver(why)
            self.judged.acquire()

    def _next(self, work: Work) -> Turn | None:
        if len(self._mine) < 2:
            self._mine += work.take()
        return self._mine.popleft() if self._mine and not work.stopped else None

    def _following(self, work: Work, name: str) -> str | None:
        """The next test, if it is one for the same guest. Not the same test once more: pytest would
        keep the fixtures of its first run for it."""
        following = self._mine[0].name if self._mine else name
        same_guest = work.plan.wishes_of(following) == work.plan.wishes_of(name)
        return following if same_guest and following != name else None

    # -- what the session tells while it is at something --------------------------------------

    def phase(self, text: str) -> None:
        """As `Listener.phase`."""
        self._lanes.tell(self, Phase(self.work, self._head + text if text else "", text))

    def tick(self) -> None:
        """As `Listener.tick`: the main thread has a clock of its own, so all that is to be done is
        to see whether it wants us to go on. Raises KeyboardInterrupt."""
        if select.select([self._lanes.interrupt_fd], [], [], 0)[0]:
            raise KeyboardInterrupt

    def visit(self, visit: Visit) -> None:
        """As `Caller.visit`: pytest's own thread runs it, and the guest is not ours meanwhile."""
        self._lanes.tell(self, Lent(self.work, visit))
        self.returned.acquire()
        if not visit.over:
            raise KeyboardInterrupt
