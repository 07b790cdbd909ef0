# SPDX-License-Identifier: MIT
"""What is not about single tests: capabilities, issues and errata, by kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...facts.verdicts import Verdict
from .rows import LETTERS, NOTHING, Cell, Column, Details, Row
from .shown import MOST_ID, line


def _word(value: bool | None) -> str:
    return "not decided" if value is None else "yes" if value else "no"


def capabilities(columns: Sequence[Column], details: Details) -> list[Row]:
    """Each capability that a probe was asked of, with what it saw and what is promised."""
    names = dict.fromkeys(name for one in columns for name in one.leg["capabilities"])
    rows = []
    for number, name in enumerate(names):
        cells = []
        for column in columns:
            found = column.leg["capabilities"].get(name)
            if found is None:
                cells.append(Cell(NOTHING, "", "not asked", ""))
                continue
            target = f"p-{number}-{column.number}"
            seen = found["observed"]
            letter = "u" if found["surprise"] else "k" if not seen else "p"
            text = "?" if seen is None else _word(seen)
            word = f"observed: {_word(seen)}"
            word += ", not as promised" if found["surprise"] else ""
            cells.append(Cell(letter, text + " !" * found["surprise"], word, target))
            details.cells[target] = _capability(name, found, column)
        red = any(cell.letter == "u" for cell in cells)
        rows.append(Row(number, line(name, MOST_ID), "", cells, red))
    return rows


def _capability(name: str, found: Mapping[str, Any], column: Column) -> dict[str, Any]:
    probe = column.leg["probe"]
    said = (probe["capabilities"] if probe else {}).get(name) or {"evidence": {}, "note": ""}
    promised = "nothing"
    if found["promised"] is not None:
        promised = f"{_word(found['promised'])}, {found['basis']}, by the row of {found['from']}"
    facts = [
        ("observed", _word(found["observed"])),
        ("declared", _word(found["declared"])),
        ("accepted", _word(found["accepted"])),
        ("promised", promised),
        *(("note", said["note"]) for _ in [0] if said["note"]),
    ]
    contract = column.leg["contract"] or {"surprises": []}
    facts += [
        ("surprise", f"{one['why']} {one.get('edit', '')}")
        for one in contract["surprises"]
        if one["capability"] == name
    ]
    evidence = [f"{key} = {value}" for key, value in said["evidence"].items()]
    return {
        "title": line(name, MOST_ID),
        "kernel": column.number,
        "facts": [[key, line(str(text))] for key, text in facts],
        "blocks": [["evidence", "\n".join(line(text) for text in evidence)]] if evidence else [],
    }


def issues(columns: Sequence[Column], ids: Sequence[str], details: Details) -> list[Row]:
    """Each issue that tests are of, and what it came to."""
    numbers = sorted({row["issue"] for one in columns for row in one.leg["issues"]})
    letters = {"proved": "p", "absent here": "k", "in part": "l", "disproved": "f"}
    rows = []
    for number in numbers:
        cells = []
        for column in columns:
            found = next((r for r in column.leg["issues"] if r["issue"] == number), None)
            if found is None:
                cells.append(Cell(NOTHING, "", "no test of it", ""))
                continue
            target = f"i-{number}-{column.number}"
            word = str(found["word"])
            text = f"{line(word, 40)} {found['proved']}/{found['tests']}"
            cells.append(Cell(letters.get(word, "n"), text, line(word, 40), target))
            proving = column.leg["verdicts"]
            details.cells[target] = {
                "title": f"issue {number}",
                "kernel": column.number,
                "facts": [
                    ["result", line(word)],
                    ["proved", f"{found['proved']} of {found['tests']}"],
                    ["absent", str(found["absent"])],
                ],
                "tests": [
                    place
                    for place, name in enumerate(ids)
                    if number in proving.get(name, {}).get("issues", ())
                ],
            }
        red = any(cell.letter in "fnl" for cell in cells)
        rows.append(Row(number, f"#{number}", "", cells, red))
    return rows


def errata(columns: Sequence[Column], ids: Sequence[str], details: Details) -> list[Row]:
    """Each erratum whose reproducer was selected, and what that found."""
    titles = {one["id"]: one["title"] for c in columns for one in c.leg["errata"]}
    places = {name: place for place, name in enumerate(ids)}
    rows = []
    for number, (name, title) in enumerate(titles.items()):
        cells = []
        for column in columns:
            found = next((one for one in column.leg["errata"] if one["id"] == name), None)
            if found is None:
                cells.append(Cell(NOTHING, "", "its reproducer was not selected", ""))
                continue
            target = f"e-{number}-{column.number}"
            kind = Verdict(found["verdict"])
            words = {Verdict.XFAILED: "present", Verdict.PASSED: "absent"}
            word = words.get(kind, kind.value)
            listed = {"known_bad": "listed as bad", "known_good": "listed as good"}
            cells.append(Cell(LETTERS[kind], word, f"{word}: {kind}", target))
            place = places.get(found["reproducer"])
            details.cells[target] = {
                "title": line(f"{name}: {title}", MOST_ID),
                "kernel": column.number,
                "facts": [
                    ["seen", word],
                    ["verdict of its reproducer", kind.value],
                    ["this release", listed.get(str(found["listed"]), "is in no list")],
                    *([["why", line(found["why"])]] if found.get("why") else []),
                ],
                "tests": [place] if place is not None else [],
            }
        red = any(cell.letter in "fslnu" for cell in cells)
        rows.append(Row(number, line(name, MOST_ID), line(title, MOST_ID), cells, red))
    return rows
