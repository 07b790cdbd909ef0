# SPDX-License-Identifier: MIT
"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..facts.verdicts import Verdict, Weight, counted, weight

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from ..facts.records import Record

SILENCE_SECONDS = 30.0
"""Without a terminal, a test that runs longer than this is named again, so often."""


class Progress(ABC):
    """Told what happens; shows which test, how many, how long, and the verdicts so far."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.running: dict[str, float] = {}
        """The tests that run just now, and since when."""
        self.started = time.monotonic()

    def expect(self, total: int) -> None:
        """So many verdicts are owed."""
        self.total = total

    def begin(self, name: str) -> None:
        """A test is about to run."""
        self.running[name] = time.monotonic()

    def verdict(self, name: str, record: Record) -> None:
        """A test has its verdict."""
        self.running.pop(name, None)
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

    def phase(self, text: str) -> None:
        """The run enters a phase that is not a test; empty text: back to tests."""
        if text:
            self.line(f"lab: {text}")

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


class LiveProgress(Progress):
    """A terminal: the lines scroll by above one live line."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None
        self._phase = ""

    def phase(self, text: str) -> None:
        self._phase = text
        super().phase(text)

    def begin(self, name: str) -> None:
        super().begin(name)
        self._start()

    def line(self, text: str, verdict: Verdict | None = None) -> None:
        from rich.text import Text

        style = ""
        if verdict is not None:
            style = {Weight.DISPROVES: "red", Weight.UNPROVES: "magenta"}.get(weight(verdict), "")
        self._start().console.print(Text(text, style=style), soft_wrap=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self) -> Live:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            # No redirection: pytest owns stdout and stderr, and writes only after stop().
            self._live = Live(
                console=Console(file=sys.stdout),
                get_renderable=self._now,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self._live

    def _now(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        tests = (f"{name} ({now - since:.0f} s)" for name, since in self.running.items())
        what = ", ".join(tests) or self._phase
        minutes, seconds = divmod(int(self.elapsed()), 60)
        return Text(
            f"{minutes:02}:{seconds:02}  {self.done}/{self.total}  {self.counts()}  | {what}",
            style="bold",
            overflow="ellipsis",
            no_wrap=True,
        )


def make_progress(write: Callable[[str], None]) -> Progress:
    """The way that suits where stdout goes; `write` writes a plain line."""
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if terminal and not os.environ.get("CI"):
        return LiveProgress()
    return PlainProgress(write)
