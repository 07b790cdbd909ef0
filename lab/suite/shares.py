# SPDX-License-Identifier: MIT
"""The tests of one kernel, cut up for several lanes."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..wishes import Wishes
from .plan import Plan
from .times import estimated
from .turn import Turn

NEIGHBOURS = 8
"""So many tests of one file go to a lane together: they may share what is dear to set up."""


class Shares:
    """Tests handed out in runs of neighbours, the whole selection as often as it is to be run.

    With several lanes the file whose tests took longest last time comes first, so that no lane is
    left with it at the end. A file stays in one piece and in its order: the lane that goes on with
    it keeps the fixtures of its module and its classes. Behind all files come, together, the tests
    that ask for the same other guest, so that it is booted once.
    """

    def __init__(self, plan: Plan, lanes: int) -> None:
        self._plan = plan
        usual = [name for name in plan.selected if name not in plan.own_wishes]
        files = [list(group) for _, group in groupby(usual, key=lambda n: n.split("::")[0])]
        if lanes > 1 and not plan.keep_order:
            files.sort(key=lambda names: -estimated(names, plan.seconds))
        size = NEIGHBOURS if lanes > 1 else max(1, len(usual))
        self._round = [
            names[first : first + size] for names in files for first in range(0, len(names), size)
        ]
        others: dict[Wishes, list[str]] = {}
        for name in plan.selected:
            if name in plan.own_wishes:
                others.setdefault(plan.own_wishes[name], []).append(name)
        self._others = list(others.values())
        self._left = plan.times * len(plan.selected)
        self._all_s = plan.times * estimated(plan.selected, plan.seconds)
        self._taken_s = 0.0
        self._shares = self._all()
        self._lock = threading.Lock()

    def take(self) -> Sequence[Turn]:
        """The next share; empty when there is none."""
        with self._lock:
            share = next(self._shares, ())
            self._left -= len(share)
            self._taken_s += estimated([turn.name for turn in share], self._plan.seconds)
            return share

    def left(self) -> int:
        """How many turns were not taken yet."""
        with self._lock:
            return self._left

    def seconds_left(self) -> float:
        """How long they are expected to take; infinite if no test's time is known."""
        with self._lock:
            if not self._left or not self._plan.seconds:
                return math.inf if self._left else 0.0
            return self._all_s - self._taken_s

    def _all(self) -> Iterator[Sequence[Turn]]:
        numbers = range(1, self._plan.times + 1)
        for number in numbers:
            for names in self._round:
                yield [Turn(name, number) for name in names]
        for names in self._others:
            yield [Turn(name, number) for number in numbers for name in names]
