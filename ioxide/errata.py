# SPDX-License-Identifier: MIT
"""What is known to be broken in io_uring of a kernel, and what is broken in this one.

:func:`check` answers from what was measured on released kernels, in guests, by programs that
provoke each defect (docs/errata.md).  :func:`attempt` runs those programs here.

A release that was not measured is answered by its neighbours, and the answer says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ioxide._errata import trying
from ioxide._errata.releases import Release, Version, parsed, version_of
from ioxide._errata.table import BAD, DECIDED, GOOD, Entry, Row, shipped
from ioxide._errata.trying import Outcome, Tried
from ioxide._probe.capabilities import probe

__all__ = [
    "Answer",
    "Erratum",
    "Outcome",
    "Report",
    "State",
    "Tried",
    "attempt",
    "check",
    "errata",
]

Erratum = Entry


class State(StrEnum):
    """What is known of one erratum on one release."""

    BAD = "bad"
    """Measured on this very release: it is there."""
    GOOD = "good"
    """Measured on this very release: it is not there, or the kernel has nothing it could spoil."""
    LIKELY_BAD = "likely bad"
    """It is there on the measured neighbours."""
    LIKELY_GOOD = "likely good"
    """It is not there on the measured neighbours."""
    UNCLEAR = "unclear"
    """The neighbours differ, or say nothing of this kernel."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one erratum on the release asked for."""

    erratum: Erratum
    state: State
    why: str
    """What was found on which releases, where it was not measured on this one."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one release."""

    release: str
    about: str
    """One sentence: whether this release was measured, and if not, what answers for it."""
    answers: tuple[Answer, ...]

    def of(self, *states: State) -> tuple[Answer, ...]:
        """The answers in one of the states."""
        return tuple(answer for answer in self.answers if answer.state in states)


def errata() -> tuple[Erratum, ...]:
    """Every erratum that was seen on some release, in the order of their ids."""
    table = shipped()
    return tuple(e for e in table.errata if any(r.found.get(e.id) == BAD for r in table.releases))


def attempt(ids: Sequence[str] | None = None) -> tuple[Tried, ...]:
    """Run reproducers on the running kernel, each in a process of its own; those that would harm a
    bad kernel are not tried.  It takes some ten seconds.

    A reproducer that hangs or dies is that, and the others still run.

    :param ids: of errata; None for all.
    :raises OSError: io_uring cannot be used at all; the text is the sentence that says why.
    :raises ValueError: no erratum has such an id.
    """
    chosen = trying.chosen(ids)
    report = probe()
    if report.error is not None:
        raise OSError(report.error)
    return trying.attempt(chosen, report.observed)


def check(release: str | None = None) -> Report:
    """What is known to be broken on a release.

    :param release: as ``uname -r`` prints it, or an upstream version; None for the running kernel.
    :raises ValueError: it is no release of a kernel; the sentence says what is wanted.
    """
    asked = parsed(os.uname().release if release is None else release)
    rows = shipped().releases
    itself = _measured(asked, rows)
    if itself:
        about = _about_itself(asked, itself)
        return Report(asked.text, about, tuple(_known(e, itself, asked) for e in errata()))
    return Report(asked.text, _about(asked, rows), tuple(_nearby(e, asked, rows) for e in errata()))


def _about_itself(asked: Release, rows: Sequence[Row]) -> str:
    if asked.text == rows[0].release:
        return f"{asked.text} was measured; it is {rows[0].upstream}."
    return f"{asked.text} was measured as {', '.join(row.release for row in rows)}."


def _measured(asked: Release, rows: Sequence[Row]) -> list[Row]:
    """The rows of exactly this kernel: of its release, of another flavour of the same package, or
    where only an upstream version was named, of that."""
    exact = [row for row in rows if row.release == asked.text]
    # Debian's cloud kernels are of the same sources as its others.
    same = exact or [row for row in rows if row.release.replace("-cloud", "") == asked.text]
    if same or asked.rest:
        return same
    return [row for row in rows if version_of(row.upstream) == asked.version]


def _known(erratum: Erratum, rows: Sequence[Row], asked: Release) -> Answer:
    found = {row.release: row.found.get(erratum.id) for row in rows}
    states = {state for state in found.values() if state in DECIDED}
    if not states:
        return _nearby(erratum, asked, shipped().releases)
    if len(states) > 1 and BAD in states:
        shown = ", ".join(f"{state} on {name}" for name, state in found.items() if state)
        return Answer(erratum, State.UNCLEAR, shown)
    state = State.BAD if BAD in states else State.GOOD
    return Answer(erratum, state, "measured")


def _about(asked: Release, rows: Sequence[Row]) -> str:
    whose = f", a kernel of {asked.maker}," if asked.maker else ""
    worth = f": {asked.worth}" if asked.worth else ""
    if asked.says_nothing:
        return (
            f"{asked.text}{whose} was not measured{worth}, and what its neighbours have says as "
            "little; --try asks the kernel itself."
        )
    if asked.version < version_of(rows[0].upstream) and asked.series != _series(rows[0]):
        return (
            f"{asked.text}{whose} was not measured, nor any as old: the oldest is "
            f"{rows[0].upstream}; --try asks the kernel itself."
        )
    if asked.version > version_of(rows[-1].upstream) and asked.series != _series(rows[-1]):
        return (
            f"{asked.text}{whose} was not measured{worth}, nor any as new: the newest is "
            f"{rows[-1].upstream}. What follows is of that; --try asks the kernel itself."
        )
    by = "the releases of its series" if asked.counts_builds else "its neighbours"
    if not any(_series(row) == asked.series for row in rows):
        series = ".".join(map(str, asked.series))
        by = f"the nearest of other series, for there is none of {series}"
    return (
        f"{asked.text}{whose} was not measured{worth}. What follows is of {by}; --try asks the "
        "kernel itself."
    )


def _series(row: Row) -> Version:
    return version_of(row.upstream)[:2]


def _nearby(erratum: Erratum, asked: Release, rows: Sequence[Row]) -> Answer:
    if asked.says_nothing:
        return Answer(erratum, State.UNCLEAR, "the release does not tell")
    decided = [row for row in rows if row.found.get(erratum.id) in DECIDED]
    near = _neighbours(asked, decided)
    if not near:
        return Answer(erratum, State.UNCLEAR, "no neighbour of it was measured")
    states = {row.found[erratum.id] == BAD for row in near}
    if states == {True} and _far_behind(asked, near):
        # Fixes travel between the series.
        newest = [row for row in decided if version_of(row.upstream) > asked.version][-1:]
        if newest and newest[0].found[erratum.id] != BAD:
            near, states = [*near, *newest], {True, False}
    seen = [f"{_word(row.found[erratum.id])} on {row.upstream}" for row in near]
    why = ", ".join(dict.fromkeys(seen))
    if len(states) > 1:
        return Answer(erratum, State.UNCLEAR, why)
    return Answer(erratum, State.LIKELY_BAD if states == {True} else State.LIKELY_GOOD, why)


_FAR = 5
"""So many releases behind the last of its series that was measured, what a newer series has mended
may be mended: on 6.18.44 12 errata of 6.18.15 are not there any more."""


def _far_behind(asked: Release, near: Sequence[Row]) -> bool:
    last = max(version_of(row.upstream) for row in near)
    return last[:2] == asked.series and asked.version[2:] > (last[2] + _FAR,)


def _word(found: str | None) -> str:
    return BAD if found == BAD else GOOD


def _neighbours(asked: Release, rows: Sequence[Row]) -> list[Row]:
    """The measured releases next to it: of its own series, where a stable series is a branch of its
    own, otherwise the last of the series before it and the first of the series behind it.

    A release older than all that was measured has none.
    """

    def version(row: Row) -> Version:
        return version_of(row.upstream)

    own = [row for row in rows if version(row)[:2] == asked.series]
    if own and asked.counts_builds:
        return own
    some = own or list(rows)
    before = [row for row in some if version(row) <= asked.version]
    behind = [row for row in some if version(row) > asked.version]
    if not own and not before:
        return []
    near = [row for row in before if version(row) == version(before[-1])] if before else []
    return near + [row for row in behind if version(row) == version(behind[0])]
