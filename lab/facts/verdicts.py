# SPDX-License-Identifier: MIT
"""What may be said about a test, and what a run's exit code follows from.

Exit codes come from verdicts, never from pytest, QEMU or a process in a guest: pytest's 0 means
"nothing I saw went wrong", ours means "everything that was asked for was proved".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import assert_never


class Verdict(StrEnum):
    """The one thing said about one test on one kernel."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The kernel's probe confirms that what the test needs is not there."""
    XFAILED = "xfailed"
    """An erratum's own reproducer found the erratum; or, where skips need no proof, a test failed
    that is marked as expected to."""
    NEVER_RAN = "never ran"
    LOST = "lost"
    """The test began, and its process or its guest was gone before the verdict."""
    SPLAT = "splat"
    """The kernel complained in its log while the test ran."""
    SURPRISE = "surprise"
    """A capability differs from what the contract promises."""


class Weight(Enum):
    """What a verdict does to the run that it is in."""

    PROVES = "proves"
    HARMLESS = "harmless"
    DISPROVES = "disproves"
    UNPROVES = "unproves"


def weight(verdict: str) -> Weight:
    """What this verdict does to its run.

    The type checker sees to it that each verdict is here. What is no verdict at all (a value that
    came from elsewhere) proves nothing.
    """
    try:
        known = Verdict(verdict)
    except ValueError:
        return Weight.UNPROVES
    match known:
        case Verdict.PASSED:
            return Weight.PROVES
        case Verdict.SKIPPED | Verdict.XFAILED:
            return Weight.HARMLESS
        case Verdict.FAILED | Verdict.SPLAT | Verdict.SURPRISE:
            return Weight.DISPROVES
        case Verdict.NEVER_RAN | Verdict.LOST:
            return Weight.UNPROVES
        case _:
            assert_never(known)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that weighs most, the first of those that weigh the same: what disproves, what leaves
    unproved, what is neutral, what proves."""
    return min(verdicts, key=lambda verdict: _HEAVIEST.index(weight(verdict)))


_HEAVIEST = (Weight.DISPROVES, Weight.UNPROVES, Weight.HARMLESS, Weight.PROVES)


def good(verdict: str) -> bool:
    """Whether a run in which all verdicts are such, and one of them proves, is green."""
    return weight(verdict) in (Weight.PROVES, Weight.HARMLESS)


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

    def of(self, wanted: Weight) -> list[tuple[str, Verdict]]:
        """The tests whose verdict does this to the run."""
        return [(n, verdict) for n, verdict in self.verdicts.items() if weight(verdict) is wanted]

    def counts(self) -> str:
        """` (3 passed, 1 lost)`, to follow a reason; empty if there are no verdicts."""
        return f" ({counted(self.verdicts.values())})" if self.verdicts else ""


def counted(verdicts: Iterable[Verdict]) -> str:
    """`3 passed, 1 lost`, in the order of the enumeration, naming only what occurs."""
    present = Counter(verdicts)
    # What is no verdict is named last.
    kinds = dict.fromkeys([*Verdict, *present])
    parts = [f"{present[kind]} {kind}" for kind in kinds if present[kind]]
    return ", ".join(parts) or "no verdicts"


def printable(text: str, encoding: str | None) -> str:
    """The text with escapes for what this encoding cannot say: a guest's words may hold anything,
    lone surrogates included, and the line about the exit code must not be lost for it."""
    name = encoding or "utf-8"
    return text.encode(name, "backslashreplace").decode(name)


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
    disproving, unproving = tally.of(Weight.DISPROVES), tally.of(Weight.UNPROVES)
    if bad := len(disproving) + len(tally.faults):
        reasons = [f"{name} {kind}" for name, kind in disproving[:1]] + [*tally.faults[:1]]
        more = f" and {bad - len(reasons)} more" if bad > len(reasons) else ""
        return Conclusion(ExitCode.DISPROVED, "; ".join(reasons) + more + tally.counts())
    if tally.only_collected is not None and not tally.problems:
        if not tally.only_collected:
            return Conclusion(ExitCode.NOT_PROVED, "no test was collected")
        number = tally.only_collected
        words = "1 test" if number == 1 else f"{number} tests"
        return Conclusion(ExitCode.PROVED, f"{words}, none was run", "collected only")
    if tally.problems:
        return Conclusion(ExitCode.NOT_PROVED, tally.problems[0] + tally.counts())
    if unproving:
        name, kind = unproving[0]
        more = f" and {len(unproving) - 1} more" if len(unproving) > 1 else ""
        return Conclusion(ExitCode.NOT_PROVED, f"{name} {kind}{more}{tally.counts()}")
    if not tally.verdicts:
        return Conclusion(ExitCode.NOT_PROVED, "nothing ran")
    if not tally.of(Weight.PROVES):
        return Conclusion(
            ExitCode.NOT_PROVED, f"nothing passed ({counted(tally.verdicts.values())})"
        )
    return Conclusion(ExitCode.PROVED, f"{counted(tally.verdicts.values())}")


def combined(conclusions: Mapping[str, Conclusion], *, without: Sequence[str] = ()) -> Conclusion:
    """What the conclusions about several kernels, by their names, come to: the code that weighs
    most, in the order of `conclude`, and the kernel that it is of. One alone stands as it is.
    `without` are kernels that were asked for and may be missing: they are named."""
    if len(conclusions) == 1 and not without:
        return next(iter(conclusions.values()))
    order = (ExitCode.INTERRUPTED, ExitCode.USAGE, ExitCode.DISPROVED, ExitCode.NOT_PROVED)
    codes = {conclusion.code for conclusion in conclusions.values()}
    code = next((code for code in order if code in codes), ExitCode.PROVED)
    those = {name: one.why for name, one in conclusions.items() if one.code is code}
    shown = list(those.items())[: None if code is ExitCode.PROVED else 1]
    why = "; ".join(f"{name}: {reason}" for name, reason in shown)
    if left := len(those) - len(shown):
        why += f"; and {left} more of {len(conclusions)} kernels"
    if without:
        why += f"; missing, as allowed: {', '.join(without)}"
    return Conclusion(code, why)
