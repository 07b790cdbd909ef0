# SPDX-License-Identifier: MIT
"""The host's book of a run: every selected id has one line, and only the host writes in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..facts.records import Record
from ..facts.verdicts import Verdict


class DoubleVerdict(Exception):
    """A second verdict for an id, or one for an id that was not selected."""


class Book:
    """The verdicts of a run. What was selected and never got one is `never ran`."""

    def __init__(self) -> None:
        self._selected: tuple[str, ...] = ()
        self._records: dict[str, Record] = {}

    def select(self, ids: Sequence[str]) -> None:
        """Open the book for these ids. Raises ValueError naming ids that occur twice."""
        if twice := [name for name, times in Counter(ids).items() if times > 1]:
            raise ValueError(f"selected more than once: {', '.join(twice)}")
        self._selected = tuple(ids)

    @property
    def selected(self) -> tuple[str, ...]:
        """The ids a verdict is owed for, in the order they are to run."""
        return self._selected

    def enter(self, name: str, record: Record) -> None:
        """Write a verdict. Raises DoubleVerdict if there is one or none is owed."""
        if name not in self._selected:
            raise DoubleVerdict(f"a verdict for {name!r}, which was not selected")
        if name in self._records:
            raise DoubleVerdict(f"a second verdict for {name!r}")
        self._records[name] = record

    def has(self, name: str) -> bool:
        """Whether `name` has its verdict."""
        return name in self._records

    def records(self, why_not: str = "") -> Mapping[str, Record]:
        """A record for every selected id; `why_not` is said of those that never ran."""
        missing = Record(Verdict.NEVER_RAN, why=why_not)
        return {name: self._records.get(name, missing) for name in self._selected}

    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of every selected id."""
        return {name: record.verdict for name, record in self.records().items()}


def differences(host: Iterable[str], guest: Iterable[str], *, subset: bool) -> str:
    """How the ids the guest collected differ from the host's, as a sentence; empty if they do not.

    With `subset` the guest may have more: the host left some out by what only it remembers (--lf).
    """
    ours, theirs = Counter(host), Counter(guest)
    only_ours = sorted((ours - theirs).elements())
    only_theirs = [] if subset else sorted((theirs - ours).elements())
    parts = []
    if only_ours:
        parts.append(f"collected only on the host: {_some(only_ours)}")
    if only_theirs:
        parts.append(f"collected only in the guest: {_some(only_theirs)}")
    return "; ".join(parts)


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
