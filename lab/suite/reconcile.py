# SPDX-License-Identifier: MIT
"""The host's book of a run: every selected id has one line, and only the host writes in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..facts.records import Record, of_runs
from ..facts.verdicts import Verdict
from .turn import Turn


class DoubleVerdict(Exception):
    """A second verdict for a turn of an id, or one for what was not selected."""


class Book:
    """The verdicts of a run. What was selected and never got one is `never ran`."""

    def __init__(self) -> None:
        self._selected: dict[str, None] = {}
        self._times = 1
        self._records: dict[Turn, Record] = {}

    def select(self, ids: Sequence[str], *, times: int = 1) -> None:
        """Open the book for these ids, each of which is run so many times. Raises ValueError naming
        ids that occur twice."""
        if twice := [name for name, number in Counter(ids).items() if number > 1]:
            raise ValueError(f"selected more than once: {', '.join(twice)}")
        self._selected = dict.fromkeys(ids)
        self._times = times

    @property
    def selected(self) -> tuple[str, ...]:
        """The ids a verdict is owed for, in the order they are to run."""
        return tuple(self._selected)

    def enter(self, turn: Turn, record: Record) -> None:
        """Write a verdict. Raises DoubleVerdict if there is one or none is owed."""
        if turn.name not in self._selected or not 1 <= turn.number <= self._times:
            raise DoubleVerdict(f"a verdict for {str(turn)!r}, which was not selected")
        if turn in self._records:
            raise DoubleVerdict(f"a second verdict for {str(turn)!r}")
        self._records[turn] = record

    def has(self, turn: Turn) -> bool:
        """Whether this turn has its verdict."""
        return turn in self._records

    def turns(self, name: str) -> Iterator[Turn]:
        """All turns of an id for which a verdict is owed, in order."""
        return (Turn(name, number) for number in range(1, self._times + 1))

    def records(self, why_not: str = "") -> Mapping[str, Record]:
        """A record for every selected id; `why_not` is said of those that never ran."""
        missing = Record(Verdict.NEVER_RAN, why=why_not)
        found = {
            name: [self._records.get(turn, missing) for turn in self.turns(name)]
            for name in self._selected
        }
        if self._times == 1:
            return {name: record for name, (record,) in found.items()}
        return {name: of_runs(runs) for name, runs in found.items()}

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
