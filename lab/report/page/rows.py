# SPDX-License-Identifier: MIT
"""The rows, columns and cells of a page. Only data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...facts.verdicts import Verdict, Weight, weight
from .reading import Source

LETTERS = {
    Verdict.PASSED: "p",
    Verdict.FAILED: "f",
    Verdict.SPLAT: "s",
    Verdict.LOST: "l",
    Verdict.NEVER_RAN: "n",
    Verdict.SURPRISE: "u",
    Verdict.SKIPPED: "k",
    Verdict.XFAILED: "x",
}
"""A verdict in one letter, for classes and for the filter."""
RED = "fslnu"
"""The letters of what is not good."""
NOTHING = "-"
"""The letter of a test that a kernel has no verdict of."""
_ORDER = (Weight.DISPROVES, Weight.UNPROVES, Weight.HARMLESS, Weight.PROVES)


@dataclass(frozen=True, slots=True)
class Column:
    """One kernel of one run."""

    number: int
    name: str
    leg: Mapping[str, Any]
    source: Source
    short: str = ""
    """A shorter name for the head of a table, if there is one."""
    more: str = ""
    """What stands behind its name where there is room."""

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """(letter, verdict, how many), those that weigh most first."""
        found = Counter(Verdict(one["verdict"]) for one in self.leg["verdicts"].values())
        kinds = sorted(found, key=lambda kind: (_ORDER.index(weight(kind)), kind))
        return [(LETTERS[kind], kind.value, found[kind]) for kind in kinds]

    @property
    def total(self) -> int:
        """How many verdicts it has."""
        return len(self.leg["verdicts"])

    @property
    def accel(self) -> str:
        """By what its guests were run, in words."""
        kinds = dict.fromkeys(guest["accel"] for guest in self.leg["guests"])
        return ", ".join(kinds) or "no guest"


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing on one kernel, as a table shows it."""

    letter: str
    text: str
    word: str
    """What it means, for who hears it and for the tip."""
    target: str
    """The fragment that opens its details; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    number: int
    name: str
    more: str
    cells: Sequence[Cell]
    red: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The tests of one file."""

    name: str
    rows: Sequence[Row]
    cells: Sequence[tuple[str, str]]
    """(class, text) for each kernel."""
    red: bool


@dataclass(frozen=True, slots=True)
class Bad:
    """A test that is not good on some kernels."""

    name: str
    why: str
    cells: Sequence[tuple[str, Cell]]
    """(kernel, cell)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change since the run before."""

    kind: str
    kernel: str
    name: str
    before: tuple[str, str]
    """(letter, word); both empty where there was nothing."""
    now: tuple[str, str]
    why: str
    target: str
    """The fragment that opens a test's details; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the run before."""

    directory: str
    ended: str
    changes: Sequence[Change]
    left_out: int
    """So many more are in results.json alone."""


@dataclass(slots=True)
class Details:
    """What the page's script shows of a cell when it is opened."""

    tests: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    """Of each test, a letter for each kernel."""
    kernels: list[dict[str, Any]] = field(default_factory=list)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By fragment."""


def seconds(value: float) -> str:
    """As short as may be read: "0.04", "1.2", "12", "3:05"."""
    if value < 0.995:
        return f"{value:.2f}"
    if value < 9.95:
        return f"{value:.1f}"
    if value < 99.5:
        return f"{value:.0f}"
    return f"{int(value) // 60}:{int(value) % 60:02}"
