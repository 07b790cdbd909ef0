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
from pathlib import Path

import pytest

from ..errors import LabError
from ..facts.probed import Probed
from ..facts.records import Record
from ..facts.verdicts import Verdict, printable
from ..remote.losses import RunOver
from ..report.progress import Progress, make_progress
from ..report.results import point_latest
from ..wishes import Wishes
from . import coverage, home, issues, limits, selection
from .host_side import HostSide
from .judge import Judge
from .lanes import Begun, Lanes, Ran
from .plan import Visit
from .preparation import Preparation
from .reconcile import Book, DoubleVerdict
from .reports import made_up
from .wished import own_wishes

LEAST_SECONDS = 60.0


class GuestRun:
    """Hands a session's tests out to guests, and writes what came of each into the book."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self.config = config = preparation.config
        self.book = Book()
        self.judge = Judge(
            config, preparation.project, preparation.kernel, preparation.promises, self._probe_of
        )
        self.host_side = HostSide(self._probe_of, lambda fault: self.faults.append(fault))
        self.progress: Progress = make_progress(self._write_line)
        self.lanes: Lanes | None = None
        """None until the guests are prepared."""
        self.collected = 0
        self.left_out: dict[str, int] = {}
        """How many tests were left out, by marker."""
        self.faults: list[str] = []
        """What disproves without belonging to one test."""
        self.problems: list[str] = []
        """What keeps the run from having proved anything."""
        self.over: RunOver | None = None
        """Why nothing more was run, if that is so."""
        self.issues: dict[str, Sequence[int]] = {}
        self.slow: set[str] = set()
        self.own_wishes: Mapping[str, Wishes] = {}
        """As in `Plan`."""
        self._limits: dict[str, float] = {}

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
        """The book is opened: from here on every selected id is owed a verdict."""
        try:
            self.book.select([item.nodeid for item in session.items])
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        self.left_out["slow"] = self.config.stash.get(selection.SLOW_LEFT_OUT, 0)
        self.progress.expect(len(session.items))
        if not self.config.option.collectonly:
            point_latest(self._preparation.results)
        self.own_wishes = own_wishes(session.items, self._preparation.wishes)
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
        for item in session.items:
            if not self.book.has(item.nodeid):
                self._report_never_ran(item)
        return True

    def _run(self, items: Mapping[str, pytest.Item], session: pytest.Session) -> None:
        begun: dict[str, float] = {}
        try:
            self.progress.phase("preparing the kernel and the root image")
            self.lanes = lanes = self._preparation.lanes(
                self.book.selected,
                self.own_wishes,
                self._seconds,
                frozenset(name for name, item in items.items() if selection.asks_guest(item)),
            )
        except LabError as error:
            self._give_up(RunOver(error.message, hint=error.hint))
            return
        with lanes:
            try:
                for event in lanes.events(self.progress):
                    match event:
                        case Begun(name):
                            begun[name] = time.monotonic()
                            self.progress.begin(name)
                        case Visit(name, following):
                            behind = items[following] if following else None
                            self.host_side.run(items[name], behind, event)
                        case Ran(name):
                            self._take(items[name], event)
                        case RunOver():
                            self._give_up(event)
                    if self.over is not None:
                        lanes.stop(finish=False)
                    elif session.shouldfail or session.shouldstop:
                        lanes.stop(finish=True)
            except KeyboardInterrupt:
                lanes.interrupt()
                for late in lanes.left():
                    if isinstance(late, Ran):
                        self._take(items[late.name], late)
                    else:
                        begun[late.name] = time.monotonic()
                for name, since in begun.items():
                    if not self.book.has(name):
                        seconds = time.monotonic() - since
                        self.book.enter(name, Record(Verdict.LOST, seconds, "interrupted"))
                raise
        self.host_side.finish(session)
        self._add_coverage(lanes)

    def _add_coverage(self, lanes: Lanes) -> None:
        """What was measured in the guests is a part of what the host's pytest-cov reports."""
        if not coverage.measures(self.config):
            return
        guests = [guest for session in lanes.sessions for guest in session.with_pytest]
        data = [guest.console.with_name(home.COVERAGE_FILE) for guest in guests]
        came = [file for file in data if file.is_file()]
        try:
            coverage.add(self.config, came)
        except (OSError, sqlite3.Error) as error:
            self.problems.append(f"what coverage measured in a guest cannot be used: {error}")
        if lost := len(data) - len(came) + sum(session.deaths for session in lanes.sessions):
            what = "process" if lost == 1 else "processes"
            self.judge.notes.append(
                f"the coverage of {lost} {what} in guests that died is not in the report"
            )

    def _take(self, item: pytest.Item, ran: Ran) -> None:
        """Judge what came home of one test, write it into the book, and report it."""
        try:
            record, reports = self.judge.judge(item, ran.outcome, ran.seconds)
            self.book.enter(item.nodeid, record)
        except RunOver as over:
            # What the kernel said while it ran is true all the same.
            words = f"the kernel complained while {item.nodeid} ran"
            self.report_faults([f"{words}: {splat.line}" for splat in ran.outcome.splats])
            self._give_up(over)
            return
        except DoubleVerdict as error:
            self._give_up(RunOver(str(error)))
            return
        told = [*self._preparation.properties(), ("verdict", record.verdict.value)]
        if wishes := self.own_wishes.get(item.nodeid):
            told.append(("guest", str(wishes)))
        for report in reports:
            report.user_properties += told
            item.ihook.pytest_runtest_logreport(report=report)
        self.progress.verdict(item.nodeid, record)

    def _give_up(self, over: RunOver) -> None:
        self.problems.append(over.message)
        self.over = self.over or over

    def _seconds(self, name: str, slowdown: float) -> float:
        asked = self.config.getoption("lab_timeout")
        if asked is not None:
            return float(asked)
        return max(LEAST_SECONDS, self._limits[name] * max(1.0, slowdown))

    def probe(self) -> Probed | None:
        """The probe of the kernel in the usual guest, once one was asked; None without one."""
        return self._probe_with(self._preparation.wishes)

    def probed_others(self) -> bool:
        """Whether some guest was probed."""
        return bool(self.lanes and self.lanes.common.probes)

    def _probe_of(self, name: str) -> Probed | None:
        """The probe of the kernel in such a guest as this test has."""
        return self._probe_with(self.own_wishes.get(name, self._preparation.wishes))

    def _probe_with(self, wishes: Wishes) -> Probed | None:
        return self.lanes.common.probes.get(wishes) if self.lanes else None

    def _report_never_ran(self, item: pytest.Item) -> None:
        why = self.over.message if self.over else "the run ended before it"
        self.book.enter(item.nodeid, Record(Verdict.NEVER_RAN, why=why))
        report = made_up(
            item.nodeid,
            item.location,
            f"never ran: {why}",
            Verdict.NEVER_RAN,
            when="setup",
            keywords=item.keywords,
        )
        item.ihook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The trip-wire: whoever gets past our loop must not run a guest's test on the host."""
        if self.host_side.runs(item):
            return
        pytest.fail(f"{item.nodeid} was about to run on the host instead of in a guest")

    def report_faults(self, faults: Sequence[str]) -> None:
        """What the kernel said while no test ran; for JUnit, too, as surprises are."""
        for fault in faults:
            self.faults.append(fault)
            name = f"kernel-log-{len(self.faults)}"
            report = made_up(f"lab::{name}", ("lab", 0, name), fault, Verdict.SPLAT)
            told = [*self._preparation.properties(), ("verdict", Verdict.SPLAT.value)]
            report.user_properties += told
            self.config.hook.pytest_runtest_logreport(report=report)
