# SPDX-License-Identifier: MIT
"""The run itself, on the host: the items that pytest collects, handed out to guests and judged.

The items are the host's own, collected from the same tree, so that -k, -m, -x, --lf, node ids and
JUnit apply unchanged; only what is done to run one is different.  Nothing here ever runs a test on
the host: see `pytest_runtest_setup`.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from ..errors import LabError
from ..facts.records import Record
from ..facts.verdicts import Verdict, printable
from ..remote.losses import RunOver
from ..report.display import make_progress
from ..report.progress import Guest, Progress
from ..report.results import point_latest
from ..report.terminal import Harmless
from ..wishes import Wishes
from . import coverage, evidence, home, issues, junit, limits, selection, times
from .column import Column
from .hold import Hold
from .host_side import HostSide
from .lanes import Begun, CutOff, Lanes, Lent, Over, Ran, Work
from .plan import Outcome
from .preparation import Preparation
from .reconcile import DoubleVerdict
from .turn import Turn
from .wished import own_wishes

LEAST_SECONDS = 60.0


class GuestRun:
    """Hands a session's tests out to guests, and writes what came of each into the book."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self.config = preparation.config
        self.columns = preparation.columns
        self.host_side = HostSide(
            lambda fault: self.faults.append(fault), lambda: preparation.results
        )
        self.progress: Progress = make_progress(
            self._write_line, verbosity=self.config.get_verbosity()
        )
        self._hold = Hold(self.config, self.progress)
        self._lanes = 0
        """How many guests run tests at once."""
        self.collected = 0
        self.left_out: dict[str, int] = {}
        """How many tests were left out, by marker."""
        self.faults: list[str] = []
        """What disproves without belonging to one kernel."""
        self.problems: list[str] = []
        """What keeps the run from having proved anything, whatever the kernel."""
        self.notes: list[str] = []
        """What is worth a line in each report without being anybody's fault."""
        self.issues: dict[str, Sequence[int]] = {}
        self.slow: set[str] = set()
        self.own_wishes: Mapping[str, Wishes] = {}
        """As in `Plan`."""
        self._limits: dict[str, float] = {}
        self._took: Mapping[str, times.Took] = {}
        """How long the tests took the last time, by kernel."""
        self._interrupted: list[tuple[Column, Turn, Record, Outcome]] = []
        """What ran when somebody ended the run."""

    def _write_line(self, text: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            print(printable(text, sys.stdout.encoding), flush=True)
        else:
            reporter.ensure_newline()
            reporter.write_line(text)
            # Into a pipe, stdout is not flushed by itself, and progress is only live when seen.
            reporter.flush()

    # -- collection --------------------------------------------------------------------------

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """The lab's own tests and the loops' comparison are not for a guest."""
        return True if selection.stays_on_host(self.config, collection_path) else None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected hides its tests, so it disproves."""
        if report.failed:
            self.faults.append(f"{report.nodeid or 'the session'} could not be collected")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Count what there is before anything is deselected, and leave out the lab's own tests."""
        self.collected = len(items)
        self.left_out["lab"] = selection.leave_out(self.config, items, "lab")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The books are opened: from here on every selected id is owed a verdict on each kernel."""
        try:
            for column in self.columns:
                column.book.select([i.nodeid for i in session.items], times=column.times)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        self.left_out["slow"] = self.config.stash.get(selection.SLOW_LEFT_OUT, 0)
        names = [item.nodeid for item in session.items]
        self._took = times.took(self.config, [column.cell for column in self.columns])
        seconds = [
            column.times * self._took[column.cell].all(names)
            for column in self.columns
            if column.cell in self._took
        ]
        self.progress.expect(
            sum(len(names) * column.times for column in self.columns),
            sum(seconds) if seconds else None,
        )
        if not self.config.option.collectonly:
            try:
                point_latest(self._preparation.results)
            except OSError as error:
                self.notes.append(f"`latest` does not name this run: {error.strerror}")
        self.own_wishes = own_wishes(session.items, self._preparation.wishes)
        for column in self.columns:
            column.own_wishes = self.own_wishes
        for item in session.items:
            self._limits[item.nodeid] = limits.base_seconds(item)
            if item.get_closest_marker("slow"):
                self.slow.add(item.nodeid)
            if found := issues.issues_of(item):
                self.issues[item.nodeid] = found

    # -- running -----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Have every item run in a guest and report here what it said there."""
        self._disarm_terminal()
        option = self.config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        if broken or option.collectonly:
            return None  # pytest's own loop has the words for both, and runs nothing then
        if session.items:
            self._run({item.nodeid: item for item in session.items}, session)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        for column in self.columns:
            for item in session.items:
                for turn in column.book.turns(item.nodeid):
                    if not column.book.has(turn):
                        column.report_never_ran(item, turn.number, "the run ended before it")
        return True

    def _run(self, items: Mapping[str, pytest.Item], session: pytest.Session) -> None:
        try:
            self.progress.phase("preparing the kernel and the root image")
            lanes = self._preparation.lanes(
                list(items),
                self.own_wishes,
                self._seconds,
                frozenset(name for name, item in items.items() if selection.asks_guest(item)),
            )
        except LabError as error:
            for column in self.columns:
                column.give_up(RunOver(error.message, hint=error.hint))
            return
        if lanes is None:
            return
        self.progress.phase(self._preparation.bound)
        by_work = {id(column.work): column for column in self.columns}
        begun: dict[tuple[int, Turn], float] = {}
        self._lanes = len(lanes.lanes)
        with lanes:
            try:
                for event in lanes.events(self):
                    column = by_work[id(event.work)]
                    match event:
                        case Begun(work, turn, lane):
                            begun[id(work), turn] = time.monotonic()
                            self.progress.begin(
                                column.label(turn),
                                Guest(lane, column.cell),
                                seconds=self._seconds_last_time(column, turn),
                            )
                        case Lent(_, visit):
                            behind = items[visit.following] if visit.following else None
                            with self._terminal_for_tests():
                                self.host_side.run(
                                    items[visit.name], behind, visit, column.probe_of
                                )
                        case Ran():
                            self._take(column, items[event.turn.name], event)
                        case Over():
                            column.give_up(event.why)
                    if column.over is not None:
                        event.work.stop(finish=False)
                    if session.shouldfail or session.shouldstop:
                        lanes.stop(finish=True)
            except KeyboardInterrupt:
                lanes.interrupt()
                cut_off: dict[tuple[int, Turn], Outcome] = {}
                for late in lanes.left():
                    if isinstance(late, CutOff):
                        cut_off[id(late.work), late.turn] = late.outcome
                    elif isinstance(late, Ran):
                        self._take(by_work[id(late.work)], items[late.turn.name], late)
                    else:
                        begun[id(late.work), late.turn] = time.monotonic()
                for (work_id, turn), since in begun.items():
                    column = by_work[work_id]
                    if not column.book.has(turn):
                        seconds = time.monotonic() - since
                        lost = Record(Verdict.LOST, seconds, "interrupted")
                        outcome = cut_off.get((work_id, turn), Outcome())
                        if outcome.sections:
                            lost = column.with_evidence(items[turn.name], turn, lost, outcome)
                        column.book.enter(turn, lost)
                        self._interrupted.append((column, turn, lost, outcome))
                raise
        self.host_side.finish(session)
        self._add_coverage(lanes)

    def report_rest(self, session: pytest.Session) -> None:
        """Tell JUnit of the tests that a run which ended early lost or never began: its file names
        each selected test. Whoever watches, and --lf, takes those for no failures."""
        xml = junit.writer(self.config)
        if xml is None:
            return
        items = {item.nodeid: item for item in session.items}
        for column, turn, record, outcome in self._interrupted:
            column.report_interrupted(items[turn.name], turn, record, outcome, xml)
        for column in self.columns:
            for name in column.book.selected:
                for turn in column.book.turns(name):
                    if not column.book.has(turn):
                        why = "the run ended before it"
                        column.report_never_ran(items[name], turn.number, why, xml)

    def _add_coverage(self, lanes: Lanes) -> None:
        """What was measured in the guests is a part of what the host's pytest-cov reports."""
        if not coverage.measures(self.config):
            return
        sessions = [session for work in lanes.works for session in work.sessions]
        guests = [guest for session in sessions for guest in session.with_pytest]
        data = [guest.console.with_name(home.COVERAGE_FILE) for guest in guests]
        came = [file for file in data if file.is_file()]
        try:
            coverage.add(self.config, came)
        except (OSError, sqlite3.Error) as error:
            self.problems.append(f"what coverage measured in a guest cannot be used: {error}")
        if lost := len(data) - len(came) + sum(session.deaths for session in sessions):
            what = "process" if lost == 1 else "processes"
            self.notes.append(
                f"the coverage of {lost} {what} in guests that died is not in the report"
            )

    def _take(self, column: Column, item: pytest.Item, ran: Ran) -> None:
        """Judge what came home of one test, write it into the book, and report it."""
        try:
            record, reports = column.judge.judge(item, ran.outcome, ran.seconds)
            kept = evidence.keep(column.log, str(ran.turn), reports, ran.outcome)
            record = replace(record, evidence=kept)
            column.book.enter(ran.turn, record)
        except RunOver as over:
            # What the kernel said while it ran is true all the same.
            words = f"the kernel complained while {item.nodeid} ran"
            column.report_faults([f"{words}: {splat.line}" for splat in ran.outcome.splats])
            column.give_up(over)
            return
        except DoubleVerdict as error:
            column.give_up(RunOver(str(error)))
            return
        for report in reports:
            if wishes := self.own_wishes.get(item.nodeid):
                report.user_properties.append(("guest", str(wishes)))
            column.report(report, record.verdict, item.ihook, run=ran.turn.number)
        column.end_report(reports[-1])
        self.progress.verdict(column.label(ran.turn), record, Guest(ran.lane, column.cell))
        self._hold.look(column, ran, record, others=self._lanes - 1)

    # -- what is shown while it runs ---------------------------------------------------------

    def phase(self, work: Work, lane: int, text: str, what: str) -> None:
        """As `lanes.Watcher.phase`."""
        self.progress.phase(text, self._guest(work, lane), what)

    def gone(self, work: Work, lane: int) -> None:
        """As `lanes.Watcher.gone`."""
        self._lanes -= 1
        self.progress.gone(self._guest(work, lane))

    def tick(self) -> None:
        """As `lanes.Watcher.tick`."""
        self.progress.tick()

    def _disarm_terminal(self) -> None:
        """From here on pytest shows what tests have printed."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and sys.stdout.isatty():
            writer = reporter._tw  # pytest has no other way to what it writes to
            writer._file = Harmless(writer._file)

    def _guest(self, work: Work, lane: int) -> Guest:
        return Guest(lane, next(one.cell for one in self.columns if one.work is work))

    def _seconds_last_time(self, column: Column, turn: Turn) -> float:
        took = self._took.get(column.cell)
        return took.one(turn.name) if took is not None else 0.0

    def _terminal_for_tests(self) -> AbstractContextManager[None]:
        """With -s a test on the host may write to the terminal."""
        return self.progress.aside() if self.config.option.capture == "no" else nullcontext()

    def _seconds(self, name: str, slowdown: float) -> float:
        asked = self.config.getoption("lab_timeout")
        if asked is not None:
            return float(asked)
        return max(LEAST_SECONDS, self._limits[name] * max(1.0, slowdown))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The trip-wire: whoever gets past our loop must not run a guest's test on the host."""
        if self.host_side.runs(item):
            return
        pytest.fail(f"{item.nodeid} was about to run on the host instead of in a guest")
