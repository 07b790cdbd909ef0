# SPDX-License-Identifier: MIT
"""``python -m bench.peers_html FILE``: what docs/peers.json says, as a page for a browser.

It measures nothing. The page is one file and needs no network; its layout, filter, keys and script
are those of the lab's pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.errors import Void
from bench.native import ROOT
from lab.report import page
from lab.report.page.rows import Cell, Details, Group, Row
from lab.report.page.shown import line

RESULTS = ROOT / "docs" / "peers.json"
VERSION = 1
"""Of the form of docs/peers.json."""
FIELDS: Mapping[str, tuple[str, str, str]] = {
    "rate": ("req/s", "requests a second", ",.0f"),
    "cpu_us": ("CPU us", "processor time of the server, in microseconds a request", ",.2f"),
    "p50_us": ("p50 us", "half of the requests took no longer, in microseconds", ",.0f"),
    "p99_us": ("p99 us", "99 of 100 requests took no longer, in microseconds", ",.0f"),
}
"""What was measured: (unit, meaning, form of a number)."""
_ABOUT: Mapping[str, str] = {
    "date": "measured on {}",
    "machine": "{}",
    "rounds": "{} rounds",
    "seconds": "{} s each",
    "load_average": "load average at the end {}",
}
STYLE = """
.whisker { stroke: var(--ink); }
#plots rect { fill: var(--calm); }
#matrix td { text-align: right; }
#matrix td a { padding: 1px 6px; }
"""


@dataclass(frozen=True, slots=True)
class Head:
    """A column: one thing that was measured, with server and load generator placed so."""

    number: int
    name: str
    short: str
    more: str
    placement: str
    field: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A server in a plot; lengths in percent of the plot."""

    name: str
    text: str
    width: float
    low: float
    high: float
    target: str


def read(path: Path) -> dict[str, Any]:
    """The results that a benchmark wrote. Raises `Void` for anything else, naming what is wrong."""
    try:
        found = json.loads(path.read_text())
        if found["version"] != VERSION:
            raise Void(f"{path} is of version {found['version']!r}; this program reads {VERSION}")
        for number, cell in enumerate(found["cells"]):
            for name in ("server", "scene", "placement"):
                if not isinstance(cell[name], str):
                    raise Void(f"{path}: {name} of cell {number} is {cell[name]!r}, and no text")
            for name in FIELDS:
                if not cell[name] or not all(_is_number(one) for one in cell[name]):
                    raise Void(f"{path}: {name} of cell {number} is no list of measurements")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Void(f"{path} is no result of make bench-peers: {error!r}") from None
    return dict(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def render(results: Mapping[str, Any]) -> str:
    """The page of these results. Raises ImportError where jinja2 is not installed."""
    cells = results["cells"]
    placements = list(dict.fromkeys(cell["placement"] for cell in cells))
    heads = [
        Head(
            number,
            line(f"{unit}, {placement}", 80),
            unit,
            line(f"{meaning}, {placement}"),
            placement,
            field,
        )
        for number, (placement, field, (unit, meaning, _)) in enumerate(
            (placement, field, words) for placement in placements for field, words in FIELDS.items()
        )
    ]
    lines = list(dict.fromkeys((cell["scene"], cell["server"]) for cell in cells))
    found = {(cell["scene"], cell["server"], cell["placement"]): cell for cell in cells}
    details = Details(tests=[line(f"{scene}: {server}", 300) for scene, server in lines])
    rows = [_row(number, one, heads, found, details) for number, one in enumerate(lines)]
    details.verdicts = ["".join(cell.letter for cell in row.cells) for row in rows]
    details.kernels = [
        {"name": head.name, "sub": "", "facts": [["meaning", head.more]], "said": []}
        for head in heads
    ]
    scenes = dict.fromkeys(scene for scene, _ in lines)
    groups = []
    for scene in scenes:
        members = [row for row, one in zip(rows, lines, strict=True) if one[0] == scene]
        groups.append(Group(line(scene, 80), members, [("-", "")] * len(heads), False))
    data = {
        "tests": details.tests,
        "verdicts": details.verdicts,
        "kernels": details.kernels,
        "cells": details.cells,
        "badges": "none",
    }
    width = f"#matrix {{ --first: 220px; --cell: 84px; --columns: {len(heads)}; }}\n"
    return page.filled(
        "peers.html.j2",
        data,
        style=STYLE + width,
        beside=Path(__file__).parent,
        columns=heads,
        groups=groups,
        total=len(rows),
        plots=list(_plots(scenes, placements, lines, found)),
        placements=[line(one, 80) for one in placements],
        about=list(_about(results)),
        absent=[(line(str(k)), line(str(v))) for k, v in dict(results.get("absent", {})).items()],
    )


def _row(
    number: int,
    which: tuple[str, str],
    heads: Sequence[Head],
    found: Mapping[tuple[str, str, str], Mapping[str, Any]],
    details: Details,
) -> Row:
    scene, server = which
    cells = []
    for head in heads:
        measured = found.get((scene, server, head.placement))
        if measured is None:
            cells.append(Cell("-", "", "not measured", ""))
            continue
        values, form = measured[head.field], FIELDS[head.field][2]
        target = f"t-{number}-{head.number}"
        told = format(median(values), form)
        cells.append(Cell("x", told, f"{told} {head.name}", target))
        details.cells[target] = {
            "v": f"{told} (median)",
            "w": f"{format(min(values), form)} to {format(max(values), form)}",
            "d": [[f"Each of {len(values)} rounds", "\n".join(format(v, form) for v in values)]],
        }
    return Row(number, line(server, 120), "", cells)


def _plots(
    scenes: Mapping[str, None],
    placements: Sequence[str],
    lines: Sequence[tuple[str, str]],
    found: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> Iterator[tuple[str, list[Bar]]]:
    """Requests a second, a plot for each scene and placement."""
    each = len(FIELDS)
    for scene in scenes:
        for place, placement in enumerate(placements):
            of = [
                (number, server, found[scene, server, placement]["rate"])
                for number, (one, server) in enumerate(lines)
                if one == scene and (scene, server, placement) in found
            ]
            most = max((max(values) for _, _, values in of), default=0.0) or 1.0
            yield (
                line(f"{scene}, {placement}", 160),
                [
                    _bar(server, values, most, f"t-{number}-{place * each}")
                    for number, server, values in of
                ],
            )


def _bar(server: str, values: Sequence[float], most: float, target: str) -> Bar:
    shares = [round(100 * one / most, 2) for one in (median(values), min(values), max(values))]
    told = format(median(values), FIELDS["rate"][2])
    return Bar(line(server, 120), told, shares[0], shares[1], shares[2], target)


def _about(results: Mapping[str, Any]) -> Iterator[str]:
    """How it was measured."""
    for key, words in _ABOUT.items():
        if key in results:
            yield line(words.format(results[key]))
    versions = results.get("versions", {})
    yield from (line(f"{name} {version}") for name, version in dict(versions).items())


def main() -> int:
    """Write the page; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers_html", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="where the page goes")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="JSON", help="instead of docs/peers.json"
    )
    options = parser.parse_args()
    try:
        page.replaced(options.file, render(read(options.results)))
    except Void as error:
        print(f"bench: void: {error}", file=sys.stderr)
        return 3
    except ImportError:
        print("bench: void: the page needs jinja2: pip install jinja2", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"bench: void: {options.file} cannot be written: {error.strerror}", file=sys.stderr)
        return 3
    print(options.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
