# SPDX-License-Identifier: MIT
"""A run as Markdown: the step summary of a workflow, or a comment on a change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..facts.kernel import BUILT
from ..facts.verdicts import Verdict, counted, good
from . import previous
from .content import counts

FILE = "summary.md"
MOST_TESTS = 50
"""So many tests that are not good are listed for a kernel; a step summary holds 1 MiB (GitHub's
documentation of workflow commands)."""
MOST_CHARACTERS = 500
"""Of a reason."""


def write(directory: Path, whole: Mapping[str, Any]) -> None:
    """Write it beside the run's results.json."""
    (directory / FILE).write_text(markdown(whole), encoding="utf-8", errors="backslashreplace")


def markdown(whole: Mapping[str, Any]) -> str:
    """The text of a run whose results.json says this."""
    legs: Mapping[str, Mapping[str, Any]] = whole["legs"]
    lines = [
        *_changes(whole),
        *table(
            ("kernel", "release", "accelerator", "proved", "verdicts", "exit"),
            [_row(name, leg) for name, leg in legs.items()],
        ),
        "",
        *_accelerators(legs),
    ]
    for name, leg in legs.items():
        lines += _not_good(name, leg)
        lines += _how_often(name, leg)
    lines += _capabilities(legs)
    lines += _errata(legs)
    code, why = whole["exit"]["code"], whole["exit"]["why"]
    return "\n".join([*lines, f"**exit {code}**: {plain(why)}", ""])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, whose cells are text and not Markdown."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows),
    ]


def plain(text: str) -> str:
    """One line that Markdown shows as it is: a test's words must not become a link, an image or a
    row of their own."""
    line = " ".join(text.split())
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:MOST_CHARACTERS]}..."
    return re.sub(r"([\\`*_\[\]<>()#!|~@$&])", _escaped, line)


def _escaped(found: re.Match[str]) -> str:
    character = found[1]
    # An @ would notify whoever is called so, which a backslash does not prevent.
    return f"&#{ord(character)};" if character in "<>&@|" else f"\\{character}"


def _changes(whole: Mapping[str, Any]) -> list[str]:
    """What has changed since the run before of the same selection."""
    lines = [f"- note: {plain(text)}" for text in whole.get("notes", ())]
    if (found := whole.get("previous")) is not None:
        where = plain(found["directory"])
        changed = [f"- {plain(line)}" for line in previous.told(found)]
        if changed:
            lines += [f"**Changed since {where}**", "", *changed]
        else:
            lines.append(f"Nothing has changed since {where}.")
    return [*lines, ""] if lines else []


def _how_often(name: str, leg: Mapping[str, Any]) -> list[str]:
    """The tests whose verdict was not the same in each run."""
    often = {
        test: counted(Verdict(run["verdict"]) for run in found["runs"])
        for test, found in leg["verdicts"].items()
        if len({run["verdict"] for run in found.get("runs", ())}) > 1
    }
    if not often:
        return []
    rows = list(often.items())[:MOST_TESTS]
    head = (f"{plain(name)}, not the same each time", f"in {leg['repeat']} runs")
    return [*table(head, rows), ""]


def _row(name: str, leg: Mapping[str, Any]) -> Sequence[str]:
    kernel = leg["kernel"]
    release = "not to be had"
    if kernel is not None:
        how = BUILT if kernel["source"] == BUILT else "" if kernel["locked"] else "unlocked"
        release = kernel["release"] + (f", {how}" if how else "")
    return (
        name,
        release,
        ", ".join(dict.fromkeys(guest["accel"] for guest in leg["guests"])) or "no guest",
        f"{leg['proved']} of {leg['selected']}",
        counts(leg["verdicts"]),
        f"{leg['exit']['code']}: {leg['exit']['why']}",
    )


def _accelerators(legs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why each guest was run as it was; one line for each reason."""
    lines = [
        f"{plain(name)}: {plain(guest['accel'])}, {plain(guest['accel_reason'])}"
        for name, leg in legs.items()
        for guest in leg["guests"]
    ]
    return [f"- {line}" for line in dict.fromkeys(lines)] + [""] * bool(lines)


def _not_good(name: str, leg: Mapping[str, Any]) -> list[str]:
    said = [("disproved", text) for text in leg["faults"]]
    said += [("not proved", text) for text in leg["problems"]]
    contract = leg["contract"] or {"surprises": []}
    said += [("surprise", surprise["why"]) for surprise in contract["surprises"]]
    red = [(test, found) for test, found in leg["verdicts"].items() if not good(found["verdict"])]
    rows = [(found["verdict"], test, found["why"]) for test, found in red[:MOST_TESTS]]
    if not said and not rows:
        return []
    lines = [f"**{plain(name)}**", ""]
    lines += [f"- {kind}: {plain(text)}" for kind, text in said[:MOST_TESTS]]
    lines += [""] * bool(said)
    if rows:
        lines += [*table(("verdict", "test", "why"), rows), ""]
    if len(red) > len(rows):
        lines += [f"{len(red) - len(rows)} more are in results.json.", ""]
    return lines


def _capabilities(legs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for leg in legs.values() for name in leg["capabilities"])
    if not names:
        return []
    rows = [[name, *(_seen(leg, name) for leg in legs.values())] for name in names]
    head = ("capability", *(plain(name) for name in legs))
    return [
        *table(head, rows),
        "",
        "Seen by the probe: ! is not as promised, - was not decided.",
        "",
    ]


def _seen(leg: Mapping[str, Any], name: str) -> str:
    found = leg["capabilities"].get(name)
    if found is None or found["observed"] is None:
        return "-"
    return ("yes" if found["observed"] else "no") + (" !" if found["surprise"] else "")


def _errata(legs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (found["id"], name, found["verdict"], found["listed"] or "in no list", found["title"])
        for name, leg in legs.items()
        for found in leg["errata"]
    ]
    return [*table(("erratum", "kernel", "verdict", "listed", "what"), rows), ""] if rows else []
