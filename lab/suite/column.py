# SPDX-License-Identifier: MIT
"""One kernel of a run: what it is promised, its tests' verdicts, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ..facts.probed import Probed
from ..facts.records import Record
from ..facts.verdicts import Verdict
from ..project import Project
from ..remote.log import Log
from ..remote.losses import RunOver
from ..rules.contract import Comparison
from ..vm import Launcher
from ..wishes import Wishes
from . import evidence, junit
from .judge import Judge
from .reconcile import Book
from .reports import made_up
from .turn import Turn

if TYPE_CHECKING:
    from ..facts.kernel import Kernel
    from .lanes import Work
    from .plan import Lab, Outcome
    from .promises import Promises


class _Node:
    """Where a report comes from, as pytest-xdist's reports name their worker: it keeps two reports
    of one id apart in JUnit (pytest's junitxml), and heads what is shown of a failure."""

    def __init__(self, cell: str) -> None:
        self.gateway = SimpleNamespace(id=cell)
        self._workerinfocache = f"[kernel {cell}]"


class Column:
    """A kernel, its guests and its book. A run has one for each kernel."""

    def __init__(
        self,
        config: pytest.Config,
        project: Project,
        *,
        asked: str,
        kernel: Kernel,
        promises: Promises,
        lab: Lab,
        launcher: Launcher,
        wishes: Wishes,
        results: Path,
        cell: str,
        alone: bool,
        times: int,
    ) -> None:
        """`asked` is the name by which the kernel was asked for, `results` the directory of its
        files, `wishes` what each of its guests has, `cell` its name in reports, `alone` whether the
        run has no other kernel, and `times` how often the selection is run."""
        self.asked, self.kernel, self.promises, self.lab = asked, kernel, promises, lab
        self.wishes, self.results, self.alone = wishes, results, alone
        self.cell, self.times = cell, times
        self.book = Book()
        self.log = Log(results / evidence.FILE)
        """What pytest said of each test."""
        self.judge = Judge(config, project, kernel, promises, self.probe_of)
        self.faults: list[str] = []
        """What disproves without belonging to one test."""
        self.problems: list[str] = []
        """What keeps this kernel's part of the run from having proved anything."""
        self.over: RunOver | None = None
        """Why nothing more was run on it, if that is so."""
        self.work: Work | None = None
        """None until the guests are prepared."""
        self.own_wishes: Mapping[str, Wishes] = {}
        """As in `Plan`."""
        self._config = config
        self._properties = [("kernel", cell), ("launcher", launcher.name)]
        self._node = _Node(cell)

    def label(self, turn: Turn) -> str:
        """How a test is called while it runs."""
        words = [self.cell] * (not self.alone) + [turn.name]
        words += [f"(run {turn.number} of {self.times})"] * (self.times > 1)
        return " ".join(words)

    def give_up(self, over: RunOver) -> None:
        """Nothing more is run on this kernel."""
        self.problems.append(over.message)
        self.over = self.over or over

    # -- what its guests were asked ----------------------------------------------------------

    def probe(self) -> Probed | None:
        """The probe of the kernel in the usual guest, once one was asked; None without one."""
        return self._probe_with(self.wishes)

    def probed_others(self) -> bool:
        """Whether some guest was probed."""
        return bool(self.work and self.work.common.probes)

    def probe_of(self, name: str) -> Probed | None:
        """The probe of the kernel in such a guest as this test has."""
        return self._probe_with(self.own_wishes.get(name, self.wishes))

    def _probe_with(self, wishes: Wishes) -> Probed | None:
        return self.work.common.probes.get(wishes) if self.work else None

    # -- what pytest is told -----------------------------------------------------------------

    def report(
        self, report: pytest.TestReport, verdict: Verdict, hook: Any = None, *, run: int = 0
    ) -> None:
        """Give a report to pytest, with whose it is and what it comes to; `run` is which run of a
        test it is about."""
        report.user_properties += [*self._properties, ("verdict", verdict.value)]
        report.user_properties += [("run", str(run))] * (run > 0 and self.times > 1)
        if not self.alone:
            report.node = self._node  # type: ignore[attr-defined]
        (hook or self._config.hook).pytest_runtest_logreport(report=report)

    def end_report(self, report: pytest.TestReport) -> None:
        """This was the last report of a test."""
        junit.end_entry(self._config, report)

    def report_never_ran(self, item: pytest.Item, number: int, why: str, hook: Any = None) -> None:
        """A run of a selected test that nobody began; told to the item's hooks, or to `hook`."""
        why = self.over.message if self.over else why
        self.book.enter(Turn(item.nodeid, number), Record(Verdict.NEVER_RAN, why=why))
        report = made_up(
            item.nodeid,
            item.location,
            f"never ran: {why}",
            Verdict.NEVER_RAN,
            when="setup",
            keywords=item.keywords,
        )
        self.report(report, Verdict.NEVER_RAN, hook or item.ihook, run=number)
        self.end_report(report)

    def with_evidence(
        self, item: pytest.Item, turn: Turn, record: Record, outcome: Outcome
    ) -> Record:
        """The record of a test that was interrupted, with what it had printed."""
        report = made_up(
            item.nodeid,
            item.location,
            f"{record.verdict}: {record.why}",
            record.verdict,
            sections=outcome.sections,
        )
        return replace(record, evidence=evidence.keep(self.log, str(turn), [report], outcome))

    def report_interrupted(
        self, item: pytest.Item, turn: Turn, record: Record, outcome: Outcome, hook: Any
    ) -> None:
        """A test that was running when somebody ended the run; told to `hook` alone, with what it
        had printed under the name by which pytest's junit_logging knows that."""
        report = made_up(
            item.nodeid,
            item.location,
            f"{record.verdict}: {record.why}",
            record.verdict,
            keywords=item.keywords,
            sections=[("Captured stdout call", text) for _, text in outcome.sections],
            seconds=record.seconds,
        )
        self.report(report, record.verdict, hook, run=turn.number)
        self.end_report(report)

    def report_faults(self, faults: Sequence[str]) -> None:
        """What the kernel said while no test ran; for JUnit, too, as surprises are."""
        for fault in faults:
            self.faults.append(fault)
            name = f"kernel-log-{len(self.faults)}"
            report = made_up(f"lab::{name}", ("lab", 0, name), fault, Verdict.SPLAT)
            self.report(report, Verdict.SPLAT)
            self.end_report(report)

    def report_surprises(self, comparison: Comparison) -> None:
        """For JUnit, in which a run with a surprise must not look green."""
        for surprise in comparison.surprises:
            report = made_up(
                f"{surprise.file}::{surprise.capability}",
                (surprise.file, 0, surprise.capability),
                f"surprise: {surprise}",
                Verdict.SURPRISE,
            )
            self.report(report, Verdict.SURPRISE)
            self.end_report(report)
