# SPDX-License-Identifier: MIT
"""What docs/peers.json says, as the tables of docs/peers.md and a plot beside them."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import page
from bench.errors import Void
from bench.native import ROOT
from bench.rounds import Spread
from bench.scenes import SCENES

PAGE = ROOT / "docs" / "peers.md"
RESULTS = PAGE.with_suffix(".json")
PLOT = PAGE.with_suffix(".svg")
VERSION = 1
"""Of the form of docs/peers.json."""
PLACEMENTS = {"one core": False, "a core each": True}
"""Where server and load generator run, and whether that is apart."""
Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Aim:
    """How many requests a second one is meant to have, as a share of another's."""

    name: str
    base: str
    scene: str
    one_core: float | None = None
    core_each: float | None = None


AIMS = (
    Aim("ioxide protocol", "uvloop protocol", "1 connection", 1.0, 1.0),
    Aim("ioxide handler", "uvloop protocol", "1 connection", 1.0, 1.0),
    Aim("ioxide streams", "uvloop streams", "1 connection", 0.95, 0.95),
    Aim("ioxide uvicorn", "uvloop uvicorn", "1 connection", 1.12, 1.0),
    Aim("ioxide handler", "uvloop protocol", "64 connections", 1.28, 1.22),
    Aim("ioxide streams", "uvloop streams", "64 connections", 1.22, 1.22),
    Aim("ioxide uvicorn", "uvloop uvicorn", "64 connections", 1.65, 1.25),
    Aim("ioxide protocol", "uvloop protocol", "1 MiB down", None, 1.05),
    Aim("ioxide protocol", "uvloop protocol", "1 MiB up", None, 1.15),
    Aim("ioxide protocol", "uvloop protocol", "short connections", None, 1.05),
)
PLOTTED = ("ioxide handler", "ioxide protocol", "asyncio protocol", "C, epoll", "C, io_uring")
"""What the plot compares with uvloop's protocol."""


def interval(values: Sequence[float]) -> Spread:
    """The median, and between which two of the values it is in 95 of 100 such samples.

    By the order of the values alone: no distribution is presumed. Fewer than six values are too
    few for 95 %; then these are the least and the greatest.
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    while True:
        outside += math.comb(count, rank) / 2**count
        if 2 * outside > 0.05:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return Spread(Spread.of(values).median, ordered[rank], ordered[count - 1 - rank])


def read(path: Path) -> Results:
    """A file that `make bench-peers` wrote; raises `Void` for any other."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        version = found["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Void(f"{path} is no result of make bench-peers: {error}") from None
    if version != VERSION:
        raise Void(f"{path} has version {version!r} of that form; this program reads {VERSION}")
    return found


def _values(results: Results, server: str, scene: str, placement: str, field: str) -> list[float]:
    """One of a cell's fields, round by round; empty where it was not measured."""
    for cell in results["cells"]:
        if (cell["server"], cell["scene"], cell["placement"]) == (server, scene, placement):
            found: list[float] = cell[field]
            return found
    return []


def ratio(results: Results, name: str, base: str, scene: str, placement: str) -> Spread | None:
    """Requests a second of one as shares of the other's, round by round; None: not measured."""
    ones = _values(results, name, scene, placement, "rate")
    others = _values(results, base, scene, placement, "rate")
    if not ones or not others:
        return None
    return interval([one / other for one, other in zip(ones, others, strict=True)])


def aims(results: Results) -> str:
    """A row for each aim: an aim is missed where the whole interval lies below it."""
    lines = [
        "| scene | | over | one core [95 %] | aim | a core each [95 %] | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for aim in AIMS:
        row = [aim.scene, aim.name, aim.base]
        for placement, least in zip(PLACEMENTS, (aim.one_core, aim.core_each), strict=True):
            found = ratio(results, aim.name, aim.base, aim.scene, placement)
            row.append(_times(found))
            if least is None or found is None:
                row.append("" if least is None else f"{least:.2f}")
            else:
                row.append(f"{least:.2f} {'missed' if found.high < least else 'reached'}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _times(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.2f} [{spread.low:.2f} .. {spread.high:.2f}]"


def _scenes(results: Results) -> list[str]:
    """Those that were measured."""
    return [name for name in SCENES if any(cell["scene"] == name for cell in results["cells"])]


def _table(results: Results, placement: str, field: str, form: str) -> str:
    """Servers and scenes, medians."""
    scenes = _scenes(results)
    servers = list(dict.fromkeys(cell["server"] for cell in results["cells"]))
    lines = [f"| server | {' | '.join(scenes)} |", "|---|" + "---|" * len(scenes)]
    for server in servers:
        row = [server]
        for scene in scenes:
            values = _values(results, server, scene, placement, field)
            row.append(format(Spread.of(values).median, form) if values else "-")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _instructions(results: Results) -> str:
    found: dict[str, dict[int, int]] = {}
    for cell in results["instructions"]:
        found.setdefault(cell["server"], {})[cell["connections"]] = cell["low"]
    lines = ["| server | 1 connection | 64 connections |", "|---|---|---|"]
    for server, cells in found.items():
        lines.append(f"| {server} | {cells.get(1, '-')} | {cells.get(64, '-')} |")
    return "\n".join(lines)


def tables(results: Results) -> str:
    """The measured part of docs/peers.md."""
    versions = ", ".join(f"{name} {found}" for name, found in results["versions"].items())
    parts = [
        f"{results['date']}, {results['machine']}; {versions}.\n"
        f"{results['rounds']} rounds of {results['seconds']:g} s for each server, scene and\n"
        f"placement; load average at the end {results['load_average']}, of which about 1 is the\n"
        "benchmark itself.",
        aims(results),
    ]
    for placement in PLACEMENTS:
        parts += [
            f"Requests a second, {placement}:",
            _table(results, placement, "rate", ".0f"),
            f"Processor time of the server in microseconds a request, {placement}:",
            _table(results, placement, "cpu_us", ".1f"),
        ]
    if results["instructions"]:
        parts += ["User instructions of a request:", _instructions(results)]
    for cell in results.get("uncounted", ()):  # files of before 30 November 2026 have none
        server, connections = cell["server"], cell["connections"]
        parts.append(f"{server}, {connections} connections, is not counted: {cell['why']}.")
    parts += [f"{name} is not measured: {why}." for name, why in results["absent"].items()]
    return "\n\n".join(parts)


def plot(results: Results, path: Path) -> None:
    """Bars of requests a second over uvloop's protocol, with their intervals, as SVG."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ioxide"  # the same file from the same figures
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 6), sharex=True, sharey=True, layout="constrained"
    )
    scenes = _scenes(results)
    height = 0.8 / len(PLOTTED)
    for axis, placement in zip(axes, PLACEMENTS, strict=True):
        for number, server in enumerate(PLOTTED):
            rows, widths, errors = [], [], []
            for row, scene in enumerate(scenes):
                found = ratio(results, server, "uvloop protocol", scene, placement)
                if found is not None:
                    rows.append(row + (number - len(PLOTTED) / 2 + 0.5) * height)
                    widths.append(found.median)
                    errors.append((found.median - found.low, found.high - found.median))
            axis.barh(
                rows,
                widths,
                height,
                label=server,
                xerr=list(zip(*errors, strict=True)) or None,
                error_kw={"linewidth": 0.8},
            )
        axis.axvline(1, color="black", linewidth=1)
        axis.set_title(placement)
        axis.set_xlabel("requests a second, uvloop's protocol = 1")
        axis.set_xscale("log", base=2)  # pipelined requests are a matter of ten times
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0].set_yticks(range(len(scenes)), scenes)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PLOTTED))
    figure.savefig(path, metadata={"Date": None})


def write(results: Results, text: str) -> None:
    """The page, and the plot that it shows."""
    plot(results, PLOT)
    PAGE.write_text(page.filled(PAGE.read_text(), "peers", text))
    print(f"\nwritten to {', '.join(str(p.relative_to(ROOT)) for p in (PAGE, RESULTS, PLOT))}")
