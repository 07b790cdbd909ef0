# SPDX-License-Identifier: MIT
"""What a program's exit status and its output amount to.

The two must agree.  A status that says more than the output, or less, is a failure: one of them is
wrong, and nobody knows which.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .tap import Point, Reading, State

SKIP_STATUSES = (4, 77)
"""4 is kselftest's (KSFT_SKIP), 77 that of automake and meson."""
MOST_NAMED = 5


class Format(StrEnum):
    """How a program says what it found."""

    EXIT = "exit"
    """By its exit status alone."""
    TAP = "tap"
    KTAP = "ktap"
    """TAP as the kernel's own tests print it: the version line is not optional."""
    AUTO = "auto"
    """TAP if one line of its output is TAP's, else the exit status."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict of one program: passed, failed or skipped."""

    state: State
    why: str = ""
    points: Sequence[Point] = ()
    """Its subtests, if it prints TAP."""


def judge(wanted: Format, status: int, said: Reading, last_line: str = "") -> Judged:
    """Judge a program by what it printed and how it ended.

    `status` is the exit status, or the negated number of the signal that killed it. `last_line` is
    the last that it printed, for the reason of a skip that gives none.
    """
    if wanted is Format.EXIT or (wanted is Format.AUTO and not said.recognised):
        return _judge_status(status, last_line)
    if not said.recognised:
        return Judged(State.FAILED, f"it printed no {wanted.upper()}, and {ended(status)}")
    points = tuple(said.points)
    faults = list(said.problems)
    if wanted is Format.KTAP and not said.versioned:
        faults.insert(0, "there is no version line")
    also = "" if status in (0, 1) else f"; {ended(status)}"
    if number := said.counts[State.FAILED]:
        also = "" if status == 1 else f"; {ended(status)}"
        faults.insert(0, _failures(number, sum(said.counts.values()), points))
    if faults:
        first = faults[0] if len(faults) == 1 else f"{faults[0]} (and {len(faults) - 1} more)"
        return Judged(State.FAILED, first + also, points)
    if said.counts[State.PASSED]:
        if status == 0:
            return Judged(State.PASSED, "", points)
        return Judged(State.FAILED, f"{ended(status)}, but its TAP says that it passed", points)
    if status != 0 and status not in SKIP_STATUSES:
        return Judged(State.FAILED, f"{ended(status)}, but its TAP reports no failure", points)
    return Judged(State.SKIPPED, _reason(points), points)


def ended(status: int) -> str:
    """How a process ended, as a sentence without its end."""
    if status >= 0:
        # A shell says so of a command that a signal killed.
        by = f" (128 + {_signal(status - 128)})" if 128 < status < 128 + 65 else ""
        return f"it ended with status {status}{by}"
    return f"it was killed by {_signal(-status)}"


def _judge_status(status: int, last_line: str) -> Judged:
    if status == 0:
        return Judged(State.PASSED)
    if status in SKIP_STATUSES:
        return Judged(State.SKIPPED, last_line.strip() or f"exit status {status}")
    last = f": {last_line.strip()}" if last_line.strip() else ""
    return Judged(State.FAILED, ended(status) + last)


def _failures(number: int, of: int, points: Sequence[Point]) -> str:
    failed = [point.name for point in points if point.state is State.FAILED]
    more = f" and {number - MOST_NAMED} more" if number > MOST_NAMED else ""
    return f"{number} of {of} subtests failed: {', '.join(failed[:MOST_NAMED])}{more}"


def _reason(points: Sequence[Point]) -> str:
    """The one reason of all that was left out, or the first and how many there are."""
    reasons = list(dict.fromkeys(point.why for point in points if point.why))
    if not reasons:
        return "no subtest passed"
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} more)"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
