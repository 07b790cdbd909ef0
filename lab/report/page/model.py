# SPDX-License-Identifier: MIT
"""What is on the page of one run, or of several laid together: rows, columns and cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ...facts.verdicts import Verdict, good
from ..summary import MOST_NAMED
from .changed import changed
from .reading import Source
from .rows import LETTERS, NOTHING, RED, Bad, Cell, Changes, Column, Details, Group, Row, seconds
from .shown import MOST_ID, Budget, Excerpt, line, link, shown
from .tables import capabilities, errata, issues


@dataclass(frozen=True, slots=True)
class Model:
    """Everything on the page."""

    columns: Sequence[Column]
    groups: Sequence[Group]
    bad: Sequence[Bad]
    red: int
    """How many tests are not good, those that never ran among them."""
    said: Sequence[tuple[str, str, str]]
    """(kernel, what is so, sentence)."""
    capabilities: Sequence[Row]
    issues: Sequence[Row]
    errata: Sequence[Row]
    details: Details
    complaints: Sequence[str]
    """What cannot be shown or believed, a sentence each."""
    changes: Sequence[Changes]
    """Since the runs before, for each run that was compared with one."""
    notes: Sequence[str]
    """About whole runs."""

    @property
    def present(self) -> list[tuple[str, str, int]]:
        """(letter, verdict, how many) of all kernels together."""
        total: Counter[tuple[str, str]] = Counter()
        for column in self.columns:
            for letter, word, number in column.counts:
                total[letter, word] += number
        return [(*kind, total[kind]) for kind in total]


def model(sources: Sequence[Source], base: Path, complaints: Sequence[str] = ()) -> Model:
    """The page of these runs, which is to lie in the directory `base`."""
    columns = list(_columns(sources))
    details = Details()
    ids = list(dict.fromkeys(name for one in columns for name in one.leg["verdicts"]))
    details.tests = [line(name, 4_000) for name in ids]
    rows = [_test_row(number, name, columns) for number, name in enumerate(ids)]
    details.verdicts = ["".join(cell.letter for cell in row.cells) for row in rows]
    with Budget(base) as budget:
        for wanted in (False, True):  # what is not good comes first where the room is short
            for number, name in enumerate(ids):
                for column in columns:
                    record = column.leg["verdicts"].get(name)
                    if record is not None and good(record["verdict"]) is wanted:
                        details.cells[f"t-{number}-{column.number}"] = _test(
                            record, column, budget, good=wanted
                        )
    unbegun = [row for row in rows if {cell.letter for cell in row.cells} & set(RED) == {"n"}]
    unbegun = unbegun if len(unbegun) > MOST_NAMED else []
    together = {row.number for row in unbegun}
    details.kernels = [_kernel(column, base) for column in columns]
    return Model(
        columns=columns,
        groups=list(_groups(ids, rows)),
        bad=list(_bad([row for row in rows if row.number not in together], ids, columns)),
        red=sum(row.red for row in rows),
        said=[*_said(columns), *_never(unbegun, ids, columns)],
        capabilities=capabilities(columns, details),
        issues=issues(columns, ids, details),
        errata=errata(columns, ids, details),
        details=details,
        complaints=[line(text) for text in (*complaints, *(s.said for s in sources if s.said))],
        changes=[found for one in sources if (found := changed(one, columns, ids))],
        notes=[line(text) for one in sources for text in one.whole.get("notes", ())],
    )


def _columns(sources: Sequence[Source]) -> Iterator[Column]:
    names = Counter(name for source in sources for name in source.whole["legs"])
    number = 0
    for source in sources:
        for name, leg in source.whole["legs"].items():
            where = f" ({source.directory.name})" if names[name] > 1 else ""
            yield Column(number, line(name + where, 80), leg, source)
            number += 1


# -- tests -----------------------------------------------------------------------------------


def _test_row(number: int, name: str, columns: Sequence[Column]) -> Row:
    cells = []
    for column in columns:
        record = column.leg["verdicts"].get(name)
        if record is None:
            cells.append(Cell(NOTHING, "", "not in this run", ""))
            continue
        kind = Verdict(record["verdict"])
        text = seconds(record["seconds"]) if kind is Verdict.PASSED else kind.value
        target = f"t-{number}-{column.number}"
        cells.append(Cell(LETTERS[kind], text, kind.value, target))
    file, _, rest = name.partition("::")
    red = any(cell.letter in RED for cell in cells)
    return Row(number, line(rest or file, MOST_ID), line(file, MOST_ID), cells, red)


def _groups(ids: Sequence[str], rows: Sequence[Row]) -> Iterator[Group]:
    def file_of(row: Row) -> str:
        return ids[row.number].partition("::")[0]

    order = {file: place for place, file in enumerate(dict.fromkeys(map(file_of, rows)))}
    for _, found in groupby(sorted(rows, key=lambda r: order[file_of(r)]), key=file_of):
        members = list(found)
        cells = [
            _summed([row.cells[place] for row in members]) for place in range(len(members[0].cells))
        ]
        yield Group(members[0].more, members, cells, any(row.red for row in members))


def _summed(cells: Sequence[Cell]) -> tuple[str, str]:
    there = [cell for cell in cells if cell.letter != NOTHING]
    if not there:
        return NOTHING, ""
    passed = sum(cell.letter == "p" for cell in there)
    red = [cell.letter for cell in there if cell.letter in RED]
    return (min(red, key="fsuln".index) if red else "p"), f"{passed}/{len(there)}"


def _bad(rows: Sequence[Row], ids: Sequence[str], columns: Sequence[Column]) -> Iterator[Bad]:
    red = [row for row in rows if row.red]
    red.sort(key=lambda row: min("fsulnkxp-".index(cell.letter) for cell in row.cells))
    for row in red:
        cells = [
            (column.name, cell)
            for column, cell in zip(columns, row.cells, strict=True)
            if cell.letter in RED
        ]
        name = ids[row.number]
        whys = [
            column.leg["verdicts"][name]["why"]
            for column, cell in zip(columns, row.cells, strict=True)
            if cell.letter in RED
        ]
        yield Bad(line(name, MOST_ID), line(whys[0], 300), cells)


def _never(
    rows: Sequence[Row], ids: Sequence[str], columns: Sequence[Column]
) -> Iterator[tuple[str, str, str]]:
    """Tests that never ran, together by the reason that they share."""
    for column in columns:
        records = [column.leg["verdicts"].get(ids[row.number]) for row in rows]
        whys = Counter(r["why"] for r in records if r and r["verdict"] == Verdict.NEVER_RAN)
        for why, number in whys.items():
            yield column.name, "never ran", f"{number} tests: {line(why, 500)}"


def _test(
    record: Mapping[str, Any], column: Column, budget: Budget, *, good: bool
) -> dict[str, Any]:
    """The details of a test, by keys of one letter: there may be ten thousand of them."""
    found = _run(record, column, budget, good=good)
    found |= {"r": line(record["reproduce"], 8_000)} if record.get("reproduce") else {}
    if record.get("runs"):
        found["u"] = [_run(one, column, budget, good=good) for one in record["runs"]]
    found |= {"q": line(" ".join(record["guest"]))} if record.get("guest") else {}
    found |= {"i": record["issues"]} if record.get("issues") else {}
    return found


def _run(
    record: Mapping[str, Any], column: Column, budget: Budget, *, good: bool
) -> dict[str, Any]:
    """What there is of one run of a test."""
    found: dict[str, Any] = {"v": record["verdict"], "s": record["seconds"]}
    found |= {"w": line(record["why"])} if record["why"] else {}
    guests = column.leg["guests"]
    if (place := record.get("ran_in")) is not None and place < len(guests):
        found |= {"g": place, "b": record.get("began", 0.0)}
    for key, name in (("o", "output"), ("l", "kernel_log"), ("z", "hang")):
        if record.get(name):
            part = budget.excerpt(column.source.directory, record[name], good=good)
            found[key] = _text(part, budget)
    if record.get("complaints"):
        found["c"] = [shown(text) for text in record["complaints"][:100]]
    if record.get("subtests"):
        found["t"] = [
            [line(str(one.get(key, "")), MOST_ID) for key in ("name", "state", "why")]
            for one in record["subtests"][:200]
        ]
        found["tn"] = len(record["subtests"])
    return found


def _text(part: Excerpt, budget: Budget) -> dict[str, Any]:
    found: dict[str, Any] = {"x": part.text, "n": part.size, "f": part.file.name, "a": part.begin}
    found |= {"h": href} if (href := budget.link(part.file)) else {}
    found |= {"m": part.left_out} if part.left_out else {}
    found |= {"e": part.why} if part.why else {}
    return found


# -- kernels ---------------------------------------------------------------------------------


def _said(columns: Sequence[Column]) -> Iterator[tuple[str, str, str]]:
    for column in columns:
        leg = column.leg
        yield from ((column.name, "disproved", line(text, 500)) for text in leg["faults"])
        contract = leg["contract"] or {"surprises": []}
        yield from (
            (column.name, "surprise", line(f"{one['capability']}: {one['why']}", 500))
            for one in contract["surprises"]
        )
        yield from ((column.name, "not proved", line(text, 500)) for text in leg["problems"])


_FILES = ("console.log", "kernel.log", "tests.log", "guest-output.log", "probe.json")
_NUMBERED = ("hang-*.txt", "memory-*.core")


def _files(where: Path) -> Iterator[Path]:
    yield from (where / name for name in _FILES if (where / name).is_file())
    for pattern in _NUMBERED:
        yield from sorted(where.glob(pattern))


def _kernel(column: Column, base: Path) -> dict[str, Any]:
    """The details of a kernel."""
    leg, directory = column.leg, column.source.directory
    kernel = leg["kernel"]
    code, why = leg["exit"]["code"], leg["exit"]["why"]
    facts = [("asked for as", leg["asked"]), ("exit", f"{code}: {why}")]
    if kernel is not None:
        lock = "locked" if kernel["locked"] else "unlocked"
        facts += [
            ("release", kernel["release"]),
            ("package", f"{kernel['package']} from {kernel['source']}, {lock}"),
        ]
    facts += [("narrowed to", " ".join(leg["narrowed"]))] if leg["narrowed"] else []
    facts += [("guests with", " ".join(leg["wishes"]))] if leg["wishes"] else []
    facts += [("probe", leg["probe"]["error"])] if leg["probe"] and leg["probe"]["error"] else []
    guests = []
    for place, guest in enumerate(leg["guests"]):
        where = directory / guest["files"]
        guests.append(
            {
                "name": f"guest {guest.get('number', place + 1)}",
                "text": line(
                    f"{guest['accel']} ({guest['accel_reason']}), agent after "
                    f"{guest['boot_seconds']:.1f} s, {guest['slowdown']:.1f}x slower than the host"
                ),
                "files": [[file.name, link(file, base)] for file in _files(where)],
            }
        )
    texts = [*leg["faults"], *leg["problems"], *leg["notes"]]
    return {
        "name": column.name,
        "facts": [[key, line(str(text))] for key, text in facts],
        "said": [line(text) for text in texts[:200]],
        "guests": guests,
    }
