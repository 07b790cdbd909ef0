# SPDX-License-Identifier: MIT
"""What may be said about a test, and what a run's exit code follows from.

Exit codes come from verdicts, never from pytest, QEMU or a process in a guest: pytest's 0 means
"nothing I saw went wrong", ours means "everything that was asked for was proved".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import pytest


class Verdict(StrEnum):
    """The one thing said about one test on one kernel."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The kernel's probe confirms that what the test needs is not there."""
    XFAILED = "xfailed"
    """An erratum's own reproducer found the erratum."""
    NEVER_RAN = "never ran"
    LOST = "lost"
    """The test began, and its process or its guest was gone before the verdict."""
    SPLAT = "splat"
    """The kernel complained in its log while the test ran."""
    SURPRISE = "surprise"
    """A capability differs from what the contract promises."""


PROVING = frozenset({Verdict.PASSED})
HARMLESS = frozenset({Verdict.PASSED, Verdict.SKIPPED, Verdict.XFAILED})
DISPROVING = frozenset({Verdict.FAILED, Verdict.SPLAT, Verdict.SURPRISE})
UNPROVING = frozenset({Verdict.NEVER_RAN, Verdict.LOST})


class ExitCode(IntEnum):
    """What the process says to its caller; `1` outranks `3`."""

    PROVED = 0
    DISPROVED = 1
    USAGE = 2
    NOT_PROVED = 3
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Conclusion:
    """An exit code and the sentence that justifies it."""

    code: ExitCode
    why: str
    word: str = ""
    """What the code means, if not what it is called: nothing may be called proved that was not."""

    def __str__(self) -> str:
        word = self.word or self.code.name.lower().replace("_", " ")
        return f"lab: exit {int(self.code)} ({word}): {self.why}"


CONCLUSION = pytest.StashKey[Conclusion]()
"""Where a session keeps what it concluded; the plugin prints it as the very last line."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run amounts to, before it is judged.

    `problems` are sentences about the run itself that keep it from having proved anything (no
    kernel, a lying agent); `faults` are sentences that disprove without belonging to one test (a
    collection error, a hole in the issue table).
    """

    verdicts: Mapping[str, Verdict]
    problems: Sequence[str] = ()
    faults: Sequence[str] = ()
    usage: str = ""
    interrupted: bool = False
    only_collected: int | None = None
    """How many tests were listed, when nothing more was asked for."""

    def count(self, *kinds: Verdict) -> int:
        """How many tests got one of `kinds`."""
        return sum(1 for verdict in self.verdicts.values() if verdict in kinds)

    def counts(self) -> str:
        """` (3 passed, 1 lost)`, to follow a reason; empty if there are no verdicts."""
        return f" ({counted(self.verdicts.values())})" if self.verdicts else ""


def counted(verdicts: Iterable[Verdict]) -> str:
    """`3 passed, 1 lost`, in the order of the enumeration, naming only what occurs."""
    present = list(verdicts)
    parts = [f"{present.count(kind)} {kind}" for kind in Verdict if kind in present]
    return ", ".join(parts) or "no verdicts"


def conclude(tally: Tally) -> Conclusion:
    """Judge a run.

    Order of precedence: interrupted, usage, disproved, not proved, collected only, proved.  An
    interrupted run is 130 even when something failed before, as the shell and make expect it of
    Ctrl-C.
    """
    if tally.interrupted:
        return Conclusion(ExitCode.INTERRUPTED, f"interrupted ({counted(tally.verdicts.values())})")
    if tally.usage:
        return Conclusion(ExitCode.USAGE, tally.usage)
    if bad := tally.count(*DISPROVING) + len(tally.faults):
        first = next(
            (f"{name} {kind}" for name, kind in tally.verdicts.items() if kind in DISPROVING), ""
        )
        reasons = [text for text in (first, *tally.faults[:1]) if text]
        more = f" and {bad - len(reasons)} more" if bad > len(reasons) else ""
        return Conclusion(ExitCode.DISPROVED, "; ".join(reasons) + more + tally.counts())
    if tally.only_collected is not None and not tally.problems:
        if not tally.only_collected:
            return Conclusion(ExitCode.NOT_PROVED, "no test was collected")
        return Conclusion(
            ExitCode.PROVED, f"{tally.only_collected} tests, none of them was run", "collected only"
        )
    if tally.problems:
        return Conclusion(ExitCode.NOT_PROVED, tally.problems[0] + tally.counts())
    if unproved := tally.count(*UNPROVING):
        name, kind = next((n, k) for n, k in tally.verdicts.items() if k in UNPROVING)
        more = f" and {unproved - 1} more" if unproved > 1 else ""
        return Conclusion(ExitCode.NOT_PROVED, f"{name} {kind}{more}{tally.counts()}")
    if not tally.verdicts:
        return Conclusion(ExitCode.NOT_PROVED, "nothing ran")
    if not tally.count(*PROVING):
        return Conclusion(
            ExitCode.NOT_PROVED, f"nothing passed ({counted(tally.verdicts.values())})"
        )
    return Conclusion(ExitCode.PROVED, f"{counted(tally.verdicts.values())}")
