# SPDX-License-Identifier: MIT
"""What is on the page of the errata: releases by erratum, with what was seen on each."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ...errors import COMMAND
from ...facts.errata import Finding, Measured, Seen
from ...facts.kernel import series_of, version_key
from ...rules.errata import Erratum
from .rows import Cell, Details, Group, Row
from .shown import MOST_ID, line, shown

_KINDS: Mapping[Seen | None, tuple[str, str, str]] = {
    Seen.PRESENT: ("f", "bad", "present"),
    Seen.FAILED: ("l", "failed", "failed: its reproducer ended in neither way"),
    None: ("x", "?", "not decided"),
    Seen.NOT_APPLICABLE: ("k", "n/a", "not applicable: the release has not what it spoils"),
    Seen.ABSENT: ("p", "", "absent"),
}
"""(letter, text of a cell, words)."""


@dataclass(frozen=True, slots=True)
class Head:
    """One erratum."""

    number: int
    name: str
    short: str
    more: str
    """Its title."""
    spoils: str
    bad: int
    """On so many releases."""
    decided: int
    where: str
    """The series in which it was seen."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything on the page."""

    columns: Sequence[Head]
    groups: Sequence[Group]
    details: Details
    present: Sequence[tuple[str, str, int]]
    """(letter, word, how many)."""
    span: str


def model(errata: Sequence[Erratum], rows: Sequence[Measured]) -> Model:
    """The page of these errata on these releases, newest first."""
    rows = sorted(rows, key=lambda r: (version_key(r.upstream), version_key(r.package), r.release))
    rows = rows[::-1]
    details = Details(tests=[_name(row) for row in rows])
    lines = [_row(number, row, errata, details) for number, row in enumerate(rows)]
    details.verdicts = ["".join(cell.letter for cell in one.cells) for one in lines]
    heads = [_head(number, one, rows) for number, one in enumerate(errata)]
    details.kernels = [_erratum(h, one, rows) for h, one in zip(heads, errata, strict=True)]
    total = Counter(cell.letter for one in lines for cell in one.cells)
    series = dict.fromkeys(series_of(row.upstream) for row in rows)
    return Model(
        columns=heads,
        groups=list(_groups(lines, rows)),
        details=details,
        present=[
            (letter, words.partition(":")[0], total[letter])
            for letter, _, words in _KINDS.values()
            if total[letter]
        ],
        span=f"{len(rows)} releases of {len(series)} series, "
        f"{line(rows[-1].upstream, 40)} to {line(rows[0].upstream, 40)}"
        if rows
        else "nothing is measured yet",
    )


def _name(row: Measured) -> str:
    return line(f"{row.upstream} ({row.release})", MOST_ID)


def _row(number: int, row: Measured, errata: Sequence[Erratum], details: Details) -> Row:
    cells = []
    for place, erratum in enumerate(errata):
        finding = row.findings.get(erratum.id, Finding(None, ""))
        letter, text, words = _KINDS[finding.seen]
        target = f"t-{number}-{place}"
        cells.append(Cell(letter, text, words, target))
        details.cells[target] = _cell(erratum, row, finding, words)
    return Row(number, _name(row), "", cells, any(cell.letter == "f" for cell in cells))


def _cell(erratum: Erratum, row: Measured, finding: Finding, words: str) -> dict[str, Any]:
    found: dict[str, Any] = {"v": words}
    blocks = [["What was seen", shown(finding.evidence)]] if finding.evidence else []
    if finding.splats:
        blocks.append(["The kernel complained", "\n".join(map(shown, finding.splats))])
    expected = erratum.expected(row.upstream, row.package)
    listed = "is in no list" if expected is None else "known bad" if expected else "known good"
    said = "" if finding.evidence else "its words were not kept here; the line below asks it again"
    found["w"] = f"{listed}; {said}" if said else listed
    if not row.package.startswith("local-"):  # no source has a kernel of one's own
        again = (*COMMAND.split(), "test", "--kernel", row.upstream, erratum.reproducer)
        found["r"] = line(shlex.join(again), 8_000)
    found["d"] = blocks
    return found


def _groups(lines: Sequence[Row], rows: Sequence[Measured]) -> Iterator[Group]:
    for name, group in groupby(lines, key=lambda one: series_of(rows[one.number].upstream)):
        members = list(group)
        sums = []
        for place in range(len(members[0].cells)):
            letters = [one.cells[place].letter for one in members]
            bad, decided = letters.count("f"), letters.count("f") + letters.count("p")
            sums.append(("f" if bad else "p", f"{bad}/{decided}") if decided else ("-", ""))
        yield Group(line(name, 40), members, sums, False)


def _seen(id: str, rows: Sequence[Measured], *, kind: Seen) -> list[Measured]:
    return [row for row in rows if row.findings.get(id, Finding(None, "")).seen is kind]


def _head(number: int, erratum: Erratum, rows: Sequence[Measured]) -> Head:
    bad = _seen(erratum.id, rows, kind=Seen.PRESENT)
    good = _seen(erratum.id, rows, kind=Seen.ABSENT)
    return Head(
        number,
        line(erratum.id, MOST_ID),
        line(erratum.id.rpartition("-")[2], 12),
        line(erratum.title, MOST_ID),
        line(erratum.capability, 80),
        len(bad),
        len(bad) + len(good),
        ", ".join(dict.fromkeys(series_of(row.upstream) for row in bad[::-1])),
    )


def _erratum(head: Head, erratum: Erratum, rows: Sequence[Measured]) -> dict[str, Any]:
    """The details of an erratum."""
    facts = [
        ("spoils", erratum.capability),
        ("reproducer", erratum.reproducer),
        ("bad on", f"{head.bad} of {head.decided} releases"),
    ]
    facts += [("reported", erratum.reported)] if erratum.reported else []
    bad = _seen(erratum.id, rows, kind=Seen.PRESENT)
    return {
        "name": head.name,
        "sub": head.more,
        "facts": [[key, line(text)] for key, text in facts],
        "heading": "Bad on",
        "said": [_name(row) for row in bad],
        "links": [line(one) for one in erratum.links if one.startswith(("https://", "http://"))],
    }
