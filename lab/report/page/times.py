# SPDX-License-Identifier: MIT
"""Where the time of a run went: a timeline of its guests, and the slowest tests of each kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...facts.verdicts import Verdict, good
from .rows import LETTERS, Column, seconds
from .shown import MOST_ID, line

SLOWEST = 10
"""So many tests of a kernel are named."""
_FINEST = 0.15
"""Percent of the width: good tests that are drawn closer than this become one bar."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a guest's time; places are percents of the width."""

    x: float
    width: float
    letter: str
    word: str
    target: str = ""
    """The fragment that opens a test's details; empty for a bar that is no single bad test."""


@dataclass(frozen=True, slots=True)
class Track:
    """One guest's time."""

    name: str
    number: int
    """Of its kernel's column."""
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Slow:
    """One of the slowest tests of a kernel."""

    name: str
    seconds: str
    width: float
    """Percent of the slowest."""
    letter: str
    word: str
    target: str


@dataclass(frozen=True, slots=True)
class Times:
    """Both."""

    tracks: Sequence[Track]
    ticks: Sequence[tuple[float, str]]
    """(place, seconds)."""
    slowest: Sequence[tuple[Column, Sequence[Slow]]]


def times(columns: Sequence[Column]) -> Times:
    """What these kernels' results say of time."""
    length = max(map(_length, columns), default=0.0)
    places = _places(columns)
    tracks = [
        Track(
            f"guest {guest.get('number', number + 1)}",
            column.number,
            list(_bars(column, number, guest, length, places)),
        )
        for column in columns
        for number, guest in enumerate(column.leg["guests"])
        if "began" in guest and length > 0
    ]
    step = _step(length)
    ticks = (
        [(100 * step * n / length, clock(step * n)) for n in range(int(length / step) + 1)]
        if length > 0
        else []
    )
    return Times(tracks, ticks, [(one, list(_slowest(one, places))) for one in columns])


def _length(column: Column) -> float:
    ends = [guest.get("ended", 0.0) for guest in column.leg["guests"]]
    for record in column.leg["verdicts"].values():
        ends += [r["began"] + r["seconds"] for r in record.get("runs") or [record] if "began" in r]
    return max(map(float, ends), default=0.0)


def _places(columns: Sequence[Column]) -> Mapping[str, int]:
    ids = dict.fromkeys(name for one in columns for name in one.leg["verdicts"])
    return {name: place for place, name in enumerate(ids)}


def _bars(
    column: Column,
    number: int,
    guest: Mapping[str, Any],
    length: float,
    places: Mapping[str, int],
) -> Iterator[Bar]:
    def place(moment: float) -> float:
        return round(100 * moment / length, 3)

    began, up, ended = (float(guest.get(key, 0.0)) for key in ("began", "up", "ended"))
    boot = f"boot, {seconds(max(0.0, up - began))} s"
    yield Bar(place(began), place(max(0.0, up - began)), "boot", boot)
    yield Bar(place(up), place(max(0.0, ended - up)), "idle", f"up until {clock(ended)}")
    ran = [
        (float(one["began"]), float(one["seconds"]), name, one)
        for name, record in column.leg["verdicts"].items()
        for one in record.get("runs") or [record]
        if one.get("ran_in") == number and "began" in one
    ]
    red: list[Bar] = []
    start = end = -1.0
    together = 0
    for moment, took, name, record in sorted(ran, key=lambda one: one[:2]):
        if not good(record["verdict"]):
            letter = LETTERS[Verdict(record["verdict"])]
            word = f"{record['verdict']}: {line(name, MOST_ID)}, {seconds(took)} s"
            width = max(0.4, place(took))
            target = f"t-{places[name]}-{column.number}"
            red.append(Bar(min(place(moment), 100 - width), width, letter, word, target))
            continue
        if together and 100 * (moment - end) / length > _FINEST:
            yield _good(place(start), place(end - start), together, end - start)
            together = 0
        if not together:
            start = moment
        end = max(end, moment + took) if together else moment + took
        together += 1
    if together:
        yield _good(place(start), place(end - start), together, end - start)
    yield from red  # above the others


def _good(x: float, width: float, together: int, took: float) -> Bar:
    what = "1 test" if together == 1 else f"{together} tests"
    return Bar(x, max(0.05, width), "p", f"{what}, {seconds(took)} s")


def _slowest(column: Column, places: Mapping[str, int]) -> Iterator[Slow]:
    found = sorted(column.leg["verdicts"].items(), key=lambda one: -float(one[1]["seconds"]))
    most = float(found[0][1]["seconds"]) if found else 0.0
    for name, record in found[:SLOWEST]:
        took = float(record["seconds"])
        if took <= 0:
            return
        yield Slow(
            line(name, MOST_ID),
            f"{took:.2f}",
            round(100 * took / most, 2),
            LETTERS[Verdict(record["verdict"])],
            record["verdict"],
            f"t-{places[name]}-{column.number}",
        )


def _step(length: float) -> float:
    """A round number of seconds, of which there are at most eight in `length`."""
    if length <= 0:
        return 1.0
    least = length / 8
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600):
        if step >= least:
            return float(step)
    return 3600.0 * math.ceil(least / 3600)


def clock(value: float) -> str:
    """Seconds as a clock says it: "4.5 s", "3:05", "1:02:03"."""
    if value < 60:
        return f"{value:g} s" if value == round(value, 1) else f"{value:.1f} s"
    whole = int(value)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
