# SPDX-License-Identifier: MIT
"""Programs by releases: what each came to, and where that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..facts.kernel import Kernel, version_key
from ..facts.verdicts import Verdict, Weight, weight

VERSION = 1
UNSTEADY = "unsteady"
"""A program whose runs on one kernel came to different verdicts: it tells nothing of a change."""
NOTHING = "-"
"""A kernel on which nothing is known of a program."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one program came to on one kernel."""

    verdict: Verdict
    why: str = ""
    seconds: float = 0.0
    runs: tuple[Verdict, ...] = ()
    """Of each run, where it ran more than once."""

    @property
    def word(self) -> str:
        """The verdict, or that its runs do not agree."""
        return UNSTEADY if len(set(self.runs)) > 1 else self.verdict.value

    @property
    def decided(self) -> bool:
        """Whether the program ran to a verdict, each time."""
        return not any(weight(one) is Weight.UNPROVES for one in (self.verdict, *self.runs))


@dataclass(slots=True)
class Column:
    """One kernel."""

    kernel: Kernel
    asked: str
    cells: dict[str, Cell] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    """Why something on it is not decided."""
    faults: list[str] = field(default_factory=list)
    """What it complained of while no program ran."""

    @property
    def whole(self) -> bool:
        """Whether all programs have a verdict on it."""
        return not self.problems and all(cell.decided for cell in self.cells.values())


def column_of(
    leg: Mapping[str, Any], kernel: Kernel, asked: str, group: str, names: Iterable[str]
) -> Column:
    """A kernel's column, from what results.json says of it; `names` are the programs of `group`.

    A program of which it says nothing never ran, and neither did any where another kernel was
    booted.
    """
    column = Column(kernel, asked, seconds=float(leg["seconds"]))
    column.problems += leg["problems"]
    column.faults += leg["faults"]
    found: Mapping[str, Any] = leg["verdicts"]
    booted = leg["kernel"]
    if booted is not None and booted["package"] != kernel.package:
        column.problems.append(f"{booted['package']} was booted instead")
        found = {}
    for name in names:
        column.cells[name] = _cell(found.get(f"{group}/{name}"))
    for name, cell in column.cells.items():
        if not cell.decided:
            column.problems.append(f"{name}: {cell.verdict}: {cell.why}")
    return column


def _cell(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(Verdict.NEVER_RAN, "it was not in the run")
    runs = tuple(Verdict(one["verdict"]) for one in found.get("runs", ()))
    return Cell(Verdict(found["verdict"]), found["why"], float(found["seconds"]), runs)


def in_order(columns: Iterable[Column]) -> list[Column]:
    """The oldest kernel first."""
    return sorted(
        columns, key=lambda c: (version_key(c.kernel.upstream), version_key(c.kernel.package))
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One program on all kernels."""

    program: str
    cells: tuple[Cell | None, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Of each kernel."""
        return tuple(cell.word if cell else NOTHING for cell in self.cells)

    @property
    def decided(self) -> frozenset[str]:
        """The words that compare."""
        cells = [cell for cell in self.cells if cell is not None and cell.decided]
        return frozenset(cell.word for cell in cells) - {UNSTEADY}

    @property
    def changes(self) -> bool:
        """Whether its verdict is another on some of the kernels."""
        return len(self.decided) > 1

    @property
    def disproved(self) -> bool:
        """Whether it fails, or its kernel complains, on some of them."""
        cells = [cell for cell in self.cells if cell is not None]
        return any(weight(v) is Weight.DISPROVES for c in cells for v in (c.verdict, *c.runs))

    @property
    def unsteady(self) -> bool:
        """Whether its runs on one kernel came to different verdicts."""
        return UNSTEADY in self.words


def rows_of(columns: Sequence[Column]) -> list[Row]:
    """A row for each program of the columns, by name."""
    names = sorted({name for column in columns for name in column.cells})
    return [Row(name, tuple(column.cells.get(name) for column in columns)) for name in names]


def heads(columns: Sequence[Column]) -> list[str]:
    """What each kernel is called: its upstream version, and the package where two have the same."""
    many = Counter(column.kernel.upstream for column in columns)
    return [
        c.kernel.upstream if many[c.kernel.upstream] == 1 else c.kernel.package for c in columns
    ]


def told(columns: Sequence[Column], *, every: bool = False) -> list[str]:
    """The table as lines: the programs whose verdict changes, those that fail somewhere first, and
    what those said that did not pass. With `every` each program has a row."""
    rows = rows_of(columns)
    shown = [row for row in rows if row.changes or row.unsteady]
    lines: list[str] = []
    for title, some in (
        ("fails on some of the kernels", [row for row in shown if row.disproved]),
        ("does not fail, and is skipped on some", [row for row in shown if not row.disproved]),
        ("the same on each", [row for row in rows if every and row not in shown]),
    ):
        if some:
            lines += ["", title, *_table([["program", *heads(columns)], *map(_line, some)])]
    if reasons := [line for row in shown if row.disproved for line in _reasons(row, columns)]:
        lines += ["", "what was said", *reasons]
    return lines[1:]


def _line(row: Row) -> list[str]:
    return [row.program, *row.words]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _reasons(row: Row, columns: Sequence[Column]) -> list[str]:
    """What a program said on each kernel where it did not pass, the same of several as one."""
    said: dict[str, list[str]] = {}
    for head, cell in zip(heads(columns), row.cells, strict=True):
        if cell is not None and (cell.why or cell.word == UNSTEADY):
            counts = Counter(map(str, cell.runs))
            runs = ", ".join(f"{count} {word}" for word, count in counts.items())
            words = f"{UNSTEADY} ({runs})" if cell.word == UNSTEADY else cell.word
            said.setdefault(f"{words}: {cell.why}".removesuffix(": "), []).append(head)
    return [f"{row.program}: {', '.join(where)}: {what}" for what, where in said.items()]


def to_object(columns: Sequence[Column], programs: str) -> dict[str, Any]:
    """The same for programs; `programs` is the directory that they came from."""
    rows = rows_of(columns)
    return {
        "version": VERSION,
        "programs": programs,
        "kernels": [
            {
                "name": head,
                "asked": one.asked,
                "upstream": one.kernel.upstream,
                "package": one.kernel.package,
                "release": one.kernel.release,
                "seconds": round(one.seconds, 3),
                "problems": one.problems,
                "faults": one.faults,
            }
            for head, one in zip(heads(columns), columns, strict=True)
        ],
        "changes": [row.program for row in rows if row.changes],
        "unsteady": [row.program for row in rows if row.unsteady],
        "verdicts": {
            row.program: {
                head: {
                    "verdict": cell.verdict.value,
                    "why": cell.why,
                    "seconds": cell.seconds,
                    "runs": [one.value for one in cell.runs],
                }
                for head, cell in zip(heads(columns), row.cells, strict=True)
                if cell is not None
            }
            for row in rows
        },
    }
