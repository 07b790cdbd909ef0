# SPDX-License-Identifier: MIT
"""What a person sees while a run goes on: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..facts.verdicts import Verdict, counted

if TYPE_CHECKING:
    from ..facts.records import Record

SILENCE_SECONDS = 30.0
"""Without a terminal, a test that runs longer than this is named again, so often."""


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest that a message is about, of those that run tests at once."""

    number: int
    """From 1; its successor, if it dies, has the same number."""
    kernel: str
    """The kernel's name in the report."""


class Progress(ABC):
    """Told what happens; shows which test, how many, how long, and the verdicts so far."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.running: dict[str, float] = {}
        """The tests that run just now, and since when."""
        self.expected: dict[str, float] = {}
        """How long each of them took the last time, in seconds, as far as that is known."""
        self.owed: float | None = None
        """How long the tests that have not begun took the last time, together; None if that is
        not known."""
        self.started = time.monotonic()

    def expect(self, total: int, seconds: float | None = None) -> None:
        """So many verdicts are owed, and took so many seconds the last time."""
        self.total, self.owed = total, seconds

    def begin(self, name: str, guest: Guest | None = None, *, seconds: float = 0.0) -> None:
        """A test is about to run; it took so many seconds the last time."""
        del guest
        self.running[name] = time.monotonic()
        self.expected[name] = seconds
        if self.owed is not None:
            self.owed = max(0.0, self.owed - seconds)

    def verdict(self, name: str, record: Record, guest: Guest | None = None) -> None:
        """A test has its verdict."""
        del guest
        self.running.pop(name, None)
        self.expected.pop(name, None)
        self.done += 1
        self.verdicts[record.verdict] += 1
        why = f"  {record.why}" if record.why and record.verdict is not Verdict.PASSED else ""
        width = len(str(self.total))
        self.line(
            f"[{self.done:>{width}}/{self.total} {self.elapsed():>4.0f}s] "
            f"{record.verdict:<9} {name} ({record.seconds:.1f} s){why}",
            record.verdict,
        )

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def counts(self) -> str:
        """The verdicts so far, in words."""
        return counted(self.verdicts.elements())

    def phase(self, text: str, guest: Guest | None = None, what: str = "") -> None:
        """The run, or one of its guests, enters a phase that is not a test; empty text: back to
        tests. `what` is the phase without the words that say whose it is."""
        del guest, what
        if text:
            self.line(f"lab: {text}")

    def gone(self, guest: Guest) -> None:  # noqa: B027
        """No test will run in this guest any more."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block the caller alone writes to the terminal."""
        yield

    @abstractmethod
    def line(self, text: str, verdict: Verdict | None = None) -> None:
        """A line that stays."""

    def tick(self) -> None:  # noqa: B027 - most ways of showing need no beat
        """Time passes and nothing is said."""

    def stop(self) -> None:  # noqa: B027
        """No more progress; safe to call twice."""


class PlainProgress(Progress):
    """Lines only: for pipes, files and CI."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write
        self._said = self.started

    def line(self, text: str, verdict: Verdict | None = None) -> None:  # noqa: ARG002
        self._said = time.monotonic()
        self._write(text)

    def tick(self) -> None:
        now = time.monotonic()
        said = self._said
        for name, since in self.running.items():
            if now - max(said, since) > SILENCE_SECONDS:
                self.line(f"lab: still in {name}, for {now - since:.0f} s")
