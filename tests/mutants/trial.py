# SPDX-License-Identifier: MIT
"""Every mutant of a table tried and judged, in as many places at a time as there are."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from queue import SimpleQueue
from typing import Protocol

from tests.mutants.report import line
from tests.mutants.table import Mutant, Stale, Table
from tests.mutants.verdict import Kind, Verdict, judge
from tests.mutants.workshop import BuildError, Outcome, Run

_HOST_TESTS = ("tests/lab", "tests/differential")
"""Tests that are never sent to a guest: the exclude of [tool.lab]."""
_AT_HOME = Outcome(True, True, ["skipped"], ["tests that are never sent to a guest"])


class Place(Protocol):
    """Where mutants are tried, one after the other: a copy of the tree, here or in a guest."""

    def spoilt(self, mutant: Mutant) -> AbstractContextManager[None]:
        """The tree with `mutant` in it; raises `Stale` or `BuildError`."""

    def run(self, nodes: Sequence[str], *, limit: float, wait: float, each: float) -> Run:
        """Run tests in this order; times as in `Limits`."""

    def stop(self) -> None:
        """End what runs, and refuse to run more; from any thread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds; more in an emulated guest than here."""

    wait: float = 5.0
    """What a test waits for before it fails; what is tried takes milliseconds."""
    each: float = 20.0
    """One test."""
    run: float = 90.0
    """All the tests of one mutant."""

    def times(self, factor: float) -> Limits:
        """Limits for a machine that is slower by `factor`."""
        wait, each, run = (ceil(limit * factor) for limit in (self.wait, self.each, self.run))
        return Limits(wait, each, run)


class Trial:
    """All mutants of a table.

    With `gated`, a test that is skipped in the tree as it is, because the kernel lacks what it
    needs, is not asked of any mutant, nor is a test of the lab itself: a mutant with no other test
    is absent there.  So is one that shows only on kernels later than `release`.
    """

    def __init__(
        self,
        table: Table,
        places: Sequence[Place],
        *,
        limits: Limits,
        release: str,
        gated: bool = False,
    ) -> None:
        self._table = table
        self._limits = limits
        self._release = release
        self._gated = gated
        self._at_home = {n: _AT_HOME for n in table.tests() if gated and n.startswith(_HOST_TESTS)}
        self._idle: SimpleQueue[Place] = SimpleQueue()
        for place in places:
            self._idle.put(place)
        self._places = tuple(places)
        self._done = 0
        self._lock = threading.Lock()

    def run(self) -> list[Verdict]:
        """Judge every mutant, in the table's order."""
        with ThreadPoolExecutor(len(self._places)) as pool:
            try:
                baseline = self._baseline(pool)
                absent = _skipped(baseline) | self._at_home if self._gated else {}
                verdicts = list(pool.map(lambda m: self._try(m, absent), self._table.mutants))
                untouched = _merged(baseline)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for place in self._places:
                    place.stop()
                raise
        return [self._held_against(verdict, untouched) for verdict in verdicts]

    def _baseline(self, pool: ThreadPoolExecutor) -> list[Future[Run]]:
        """Everything that is named must be green in the tree as it is, or red means nothing.

        Nobody waits for it here but who has to know what is skipped: then every place takes part.
        """
        nodes = [node for node in self._table.tests() if node not in self._at_home]
        shares = len(self._places) if self._gated else 1
        return [pool.submit(self._untouched, nodes[share::shares]) for share in range(shares)]

    def _untouched(self, nodes: Sequence[str]) -> Run:
        place = self._idle.get()
        limits = self._limits
        try:
            limit = limits.run + limits.wait * len(nodes)
            return place.run(nodes, limit=limit, wait=limits.wait, each=limits.each)
        finally:
            self._idle.put(place)

    def _try(self, mutant: Mutant, absent: Mapping[str, Outcome]) -> Verdict:
        place = self._idle.get()
        try:
            verdict = self._judge(place, mutant, absent)
        finally:
            self._idle.put(place)
        with self._lock:
            self._done += 1
            print(line(verdict, self._done, len(self._table.mutants)), flush=True)
        return verdict

    def _judge(self, place: Place, mutant: Mutant, absent: Mapping[str, Outcome]) -> Verdict:
        if not mutant.shows_on(self._release):
            reason = f"{self._release} is older than what the bug takes to show"
            return Verdict(mutant, Kind.ABSENT, reason, tuple((n, reason) for n in mutant.red))
        red = {node: text for node, text in mutant.red.items() if node not in absent}
        if not red:
            reason = absent[next(iter(mutant.red))].message
            return Verdict(mutant, Kind.ABSENT, reason, tuple((n, reason) for n in mutant.red))
        mutant = dataclasses.replace(mutant, red=red)
        controls = tuple(n for n in self._table.controls_of(mutant) if n not in absent)
        limits = self._limits
        try:
            with place.spoilt(mutant):
                nodes = (*controls, *mutant.red)
                run = place.run(nodes, limit=limits.run, wait=limits.wait, each=limits.each)
        except Stale as error:
            return Verdict(mutant, Kind.STALE, str(error))
        except BuildError as error:
            return Verdict(mutant, Kind.NO_BUILD, "see below", detail=str(error))
        return judge(mutant, controls, run)

    def _held_against(self, verdict: Verdict, untouched: Run) -> Verdict:
        if verdict.kind is Kind.ABSENT:
            return verdict
        for node in (*self._table.controls_of(verdict.mutant), *verdict.mutant.red):
            outcome = untouched.of(node)
            if not outcome.passed and not (self._gated and outcome.skipped):
                reason = f"{node} is not green in the tree as it is: {outcome.message or 'lost'}"
                detail = outcome.text or untouched.output
                return Verdict(verdict.mutant, Kind.NOT_GREEN, reason, verdict.seen, 0.0, detail)
        return verdict


def _merged(runs: Sequence[Future[Run]]) -> Run:
    outcomes: dict[str, Outcome] = {}
    for run in runs:
        outcomes.update(run.result().outcomes)
    return dataclasses.replace(runs[0].result(), outcomes=outcomes)


def _skipped(runs: Sequence[Future[Run]]) -> dict[str, Outcome]:
    return {node: out for node, out in _merged(runs).outcomes.items() if out.skipped}
