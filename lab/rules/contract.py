# SPDX-License-Identifier: MIT
"""The contract: which capabilities a kernel series is promised to have, and has not.

A file of the repository holds it, one line a cell.  A line is about a series, or about a release of
it and those after it in the same series, because stable releases get what newer series have.  What
follows from how a kernel was built has two lines for all series: "every", and "+debug" for those of
the lab's flavour `debug`.  A line
binds both ways: what is promised and not
observed, and what is denied and observed, is a surprise.  Only the host reads the file; a guest has
none and is not asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import LabError, UsageError
from ..facts.probed import Finding, Probed
from ..project import Project

UNNAMED = "the contract"

_SERIES = re.compile(r"\d+\.\d+")
_LINE = re.compile(r"\d+\.\d+(\.\d+)?")
EVERY, DEBUG = "every", "+debug"
"""Lines about kernels of all series, and about those of them with the flavour `debug`."""
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_CELL = re.compile(r"(yes|no), (measured|assumed)")


class Basis(StrEnum):
    """How it is known what a cell says."""

    MEASURED = "measured"
    ASSUMED = "assumed"
    MASKED = "masked"
    """It was taken away for this run; never written in the file."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one series is promised about one capability."""

    present: bool
    basis: Basis
    series: str
    """The series that its line is about: a lower one where it is inherited; empty for a line about
    all series."""
    release: str = ""
    """The release from which on its line counts within the series, or which kernels of all series
    it is about; empty for all of a series."""

    def __str__(self) -> str:
        return f"{'yes' if self.present else 'no'}, {self.basis}"


@dataclass(frozen=True, slots=True)
class Row:
    """What one series, or one that plays another, is promised."""

    series: str
    cells: Mapping[str, Cell]
    plays: str = ""
    """The older series it plays, "6.6", or what was taken away, "-INC"; empty if it is itself."""
    file: str = UNNAMED
    """Where it is written, as people read it."""

    @property
    def name(self) -> str:
        """The cell of every report that this row is for: "6.12", or "6.12 as 6.6"."""
        return f"{self.series} as {self.plays}" if self.plays else self.series

    @property
    def masked(self) -> tuple[str, ...]:
        """The capabilities that are taken away."""
        return tuple(n for n, cell in self.cells.items() if cell.basis is Basis.MASKED)

    @property
    def mask(self) -> str:
        """What a probe must find in its variable so that it does without; empty for nothing."""
        return ",".join(f"-{name.lower()}" for name in self.masked)

    def inherited(self) -> str:
        """From which series how many cells come, as a sentence; empty if all are its own."""
        theirs = [c.series for c in self.cells.values() if c.series not in ("", self.series)]
        if not theirs:
            return ""
        sources = sorted(set(theirs), key=series_key, reverse=True)
        parts = [f"{theirs.count(source)} from {source}" for source in sources]
        own = sum(cell.series == self.series for cell in self.cells.values())
        has = f"has {own} cells of its own in {self.file}" if own else f"has no row in {self.file}"
        return f"{self.series} {has} and inherits {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Surprise:
    """A capability that is not as promised, and the line that would make it so."""

    capability: str
    why: str
    edit: str
    """The line of the contract that says what was observed; empty if no edit is right."""
    file: str = UNNAMED

    def __str__(self) -> str:
        if not self.edit:
            return self.why
        return f"{self.why}; if that is right, write in {self.file}: {self.edit}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the contract says of one probe."""

    surprises: tuple[Surprise, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    """The whole file."""

    rows: Mapping[str, Mapping[str, Cell]]
    """Own cells by series or release, lowest first."""
    file: str = UNNAMED
    every: Mapping[str, Cell] = field(default_factory=dict)
    """Cells of all kernels."""
    debug: Mapping[str, Cell] = field(default_factory=dict)
    """Cells of those of the flavour `debug`, before all others."""

    @property
    def names(self) -> frozenset[str]:
        """Every capability that a row names."""
        lines = (*self.rows.values(), self.every, self.debug)
        return frozenset(name for cells in lines for name in cells)

    def row(self, release: str, *, debug: bool = False) -> Row | None:
        """What a series, "6.12", or a release of it, "6.12.117", is promised: its own cells before
        inherited ones; None if it is lower than every series of the file. `debug`: it is of that
        flavour.

        A series by its name alone is promised what the lines about the whole of it say.
        """
        series = series_of_release(release)
        cells: dict[str, Cell] = {}
        for known, own in self.rows.items():
            ours = known == series_of_release(known) or series == series_of_release(known)
            if ours and series_key(known) <= series_key(release):
                cells |= own
        if not cells:
            return None
        cells = {**self.every, **cells, **(self.debug if debug else {})}
        return Row(series, cells, file=self.file)

    def playing(self, release: str, older: str, *, debug: bool = False) -> Row:
        """What a release is promised while it plays the series `older`: what either lacks is taken
        away.

        Raises UsageError when `older` is not older, has no row, or has what `series` lacks.
        """
        if not _SERIES.fullmatch(older):
            raise UsageError(f"--as {older!r} is no kernel series", hint="write it like --as 6.6")
        series = series_of_release(release)
        if series_key(older) >= series_key(series):
            raise UsageError(
                f"a {series} cannot play {older}: a mask only takes away, so --as wants an older "
                "series than --kernel"
            )
        own, wanted = self.row(release, debug=debug), self.row(older)
        if own is None or wanted is None:
            first = next(iter(self.rows), "none")
            raise UsageError(
                f"--as {older}: {self.file} does not say what such a kernel has; its lowest row is "
                f"{first}"
            )
        gone = {
            name
            for name, cell in own.cells.items()
            if not _has(wanted, name) and (cell.series or cell.present)
        }
        if given := sorted(n for n in wanted.cells if _has(wanted, n) and not _has(own, n)):
            raise UsageError(
                f"a {series} cannot play {older}, which has {', '.join(given)}: a mask only takes "
                "away"
            )
        return mask(own, gone, plays=older)

    def hopeless(self, names: Iterable[str]) -> str:
        """Why a test that needs `names` would run on no kernel of the file; empty if it would."""
        wanted = tuple(names)
        lines = [(known, debug) for known in self.rows for debug in (False, True)]
        rows = [row for line, debug in lines if (row := self.row(line, debug=debug)) is not None]
        if any(all(_has(row, name) for name in wanted) for row in rows):
            return ""
        if unknown := [n for n in wanted if not any(n in row.cells for row in rows)]:
            return f"{', '.join(unknown)} is unknown to every row of {self.file}"
        what = " together with ".join(wanted)
        series = ", ".join(dict.fromkeys(map(series_of_release, self.rows)))
        return f"no kernel series of {self.file} ({series}) has {what}"


def mask(row: Row, gone: Iterable[str], *, plays: str = "") -> Row:
    """The row without the capabilities `gone`; named after them unless it plays something."""
    taken = frozenset(gone)
    cells = {
        name: Cell(False, Basis.MASKED, row.series) if name in taken else cell
        for name, cell in row.cells.items()
    }
    return Row(row.series, cells, plays or ",".join(f"-{name}" for name in sorted(taken)), row.file)


def taken_away(variable: str, text: str, known: Iterable[str]) -> frozenset[str]:
    """The capabilities that the mask `text` takes away: words like -inc, separated by commas.

    Raises UsageError, naming `variable`, for a word that is none of the `known`.
    """
    taken = set()
    names = sorted(known)
    for word in [word.strip() for word in text.split(",")] if text.strip() else []:
        name = word.removeprefix("-").strip().upper()
        if not word.startswith("-"):
            raise UsageError(
                f"{variable}: {word!r} does not begin with a minus sign, and a mask only takes "
                f"away; write it like {variable}=-{names[0].lower() if names else 'name'}"
            )
        if name not in names:
            raise UsageError(
                f"{variable}: {word!r} names no capability; known are {', '.join(names).lower()}"
            )
        taken.add(name)
    return frozenset(taken)


def _has(row: Row, name: str) -> bool:
    cell = row.cells.get(name)
    return cell is not None and cell.present


def series_key(series: str) -> tuple[int, ...]:
    """Sorts series: 6.6 before 6.12."""
    return tuple(int(part) for part in series.split("."))


def upstream_of_release(release: str) -> str:
    """The upstream release that a kernel says it is: "6.18.15+deb13" -> "6.18.15", and "6.18-rc1"
    -> "6.18"; empty if it says none."""
    match = re.match(r"\d+\.\d+(\.\d+)?", release)
    return match[0] if match else ""


def series_of_release(release: str) -> str:
    """The series that a kernel says it is of: "6.18.15+deb13" -> "6.18"; empty if it says none."""
    match = re.match(r"\d+\.\d+", release)
    return match[0] if match else ""


def compare(row: Row, probe: Probed, *, own_machine: bool) -> Comparison:
    """Hold a probe against what is promised.

    What could not be tried (observed None) is a surprise in a guest, where the lab makes all that
    the probe needs; with `own_machine`, on somebody's own machine, it is only said.  So it is with
    an io_uring that cannot be used at all.
    """
    if probe.error is not None:
        promised = sum(cell.present for cell in row.cells.values())
        if own_machine or not promised:
            return Comparison()
        why = f"{row.name} is promised {promised} capabilities of io_uring, and {probe.error}"
        return Comparison((Surprise("io_uring", why, ""),))
    surprises, notes = [], []
    for name, cell in row.cells.items():
        finding = probe.finding(name)
        observed = None if finding is None else finding.observed
        if finding is not None and observed is None and own_machine:
            if cell.present:
                notes.append(f"{name} is promised on {row.name}, but {_untried(finding)}")
        elif cell.present is not (observed is True):
            surprises.append(_surprise(row, name, cell, finding))
    if unknown := [name for name in probe.findings if name not in row.cells]:
        notes.append(f"{row.file} promises {row.name} nothing about {', '.join(unknown)}")
    return Comparison(tuple(surprises), tuple(notes))


def _untried(finding: Finding) -> str:
    return f"could not be tried here ({finding.note or 'the probe does not say why'})"


def _surprise(row: Row, name: str, cell: Cell, finding: Finding | None) -> Surprise:
    if cell.basis is Basis.MASKED:
        return Surprise(name, f"{name} was taken away, and is observed all the same", "")
    source = _source(row, cell)
    if not cell.present:
        why = f"{name} is denied {row.series} ({cell.basis}{source}), and is observed"
        return Surprise(name, why, _edit(row, name, cell, present=True), row.file)
    why = f"{name} is promised on {row.series} ({cell.basis}{source})"
    if finding is None:
        return Surprise(name, f"{why}, and the probe knows no such capability", "")
    if finding.observed is None:
        return Surprise(name, f"{why}, and {_untried(finding)}", "")
    note = f" ({finding.note})" if finding.note else ""
    edit = _edit(row, name, cell, present=False)
    return Surprise(name, f"{why}, and is not observed{note}", edit, row.file)


def _source(row: Row, cell: Cell) -> str:
    if not cell.series:
        return f", of {cell.release} kernel"
    if cell.release:
        return f", from {cell.release} on"
    return "" if cell.series == row.series else f", inherited from {cell.series}"


def _edit(row: Row, name: str, cell: Cell, *, present: bool) -> str:
    measured = Cell(present, Basis.MEASURED, row.series)
    return f'"{cell.release or row.series}".{name} = "{measured}"'


def unconfirmed(row: Row | None, name: str, finding: Finding, *, own_machine: bool) -> str:
    """Why the contract does not confirm that a test may be skipped for lack of `name`; empty if it
    does.

    On somebody's own machine a kernel without a row is taken at its probe's word, and so is a
    capability that could not be tried there.
    """
    cell = None if row is None else row.cells.get(name)
    if cell is None:
        if own_machine:
            return ""
        if row is None:
            return f"the contract promises nothing about {name} to so old a kernel"
        return f"{row.file} promises nothing about {name} to {row.name}"
    if not cell.present or (own_machine and finding.observed is None):
        return ""
    assert row is not None
    source = _source(row, cell)
    return f"{row.file} promises {name} on {row.name} ({cell.basis}{source})"


def of(project: Project) -> Contract:
    """The contract of a repository, empty if it has none. Raises LabError."""
    if not project.contract:
        return Contract({})
    return read(project.path(project.contract), project.contract)


@cache
def read(path: Path, file: str = "") -> Contract:
    """The contract; `file` is how people are told of it.

    Raises LabError, naming the cell and the value that is wrong in it.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path.name} cannot be read: {error}") from error
    for series, cells in table.items():
        known = series in (EVERY, DEBUG) or _LINE.fullmatch(series)
        if not known or not isinstance(cells, dict):
            raise LabError(f'{path.name}: {series!r} is no row, expected "6.12".INC = "yes, ..."')
    lines = {
        line: {name: _cell(path, line, name, cell) for name, cell in cells.items()}
        for line, cells in table.items()
    }
    every, debug = lines.pop(EVERY, {}), lines.pop(DEBUG, {})
    ordered = {series: lines[series] for series in sorted(lines, key=series_key)}
    return Contract(ordered, file or path.name, every, debug)


def _cell(path: Path, series: str, name: str, value: Any) -> Cell:
    where = f'{path.name}: "{series}".{name}'
    if not _NAME.fullmatch(name):
        raise LabError(f"{where}: a capability is written like MIN_WAIT")
    match = _CELL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise LabError(f'{where} is {value!r}, expected "yes" or "no" and how that is known')
    whole = series_of_release(series)
    return Cell(match[1] == "yes", Basis(match[2]), whole, "" if series == whole else series)
