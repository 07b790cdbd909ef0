# SPDX-License-Identifier: MIT
"""pytest on the host when the tests run in a guest: `lab test`, or `pytest --lab-kernel NAME`.

The items are the host's own, collected from the same tree, so that -k, -m, -x, --lf, node ids and
JUnit apply unchanged; only what is done to run one is different.  Nothing here ever runs a test on
the host: see `pytest_runtest_setup`.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError, UsageError
from lab.report.progress import Progress, make_progress
from lab.report.summary import RunReport, render, write_json
from lab.vm import Launcher

from . import contract, errata, issues, selection, tree
from .contract import Comparison
from .plan import Outcome, Plan, RunOver
from .promises import Promises
from .reconcile import Book, DoubleVerdict, Record
from .reports import complete, made_up, verdict_of
from .results import new_directory, point_latest
from .session import Session
from .skips import judge_report
from .verdicts import CONCLUSION, Tally, Verdict, conclude

BASE_SECONDS = 10.0
SLOW_FACTOR = 6.0
LEAST_SECONDS = 60.0


class HostSide:
    """The host's mode of the plugin."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("-n: tests in a guest cannot be spread over host processes")
        try:
            self.kernel = config.hook.pytest_lab_resolve(config=config, name=name)
            self.promises = Promises(self.kernel, config.getoption("lab_as"))
            self.lab = config.hook.pytest_lab_guests(config=config, kernel=self.kernel)
        except UsageError as error:
            config.stash[CONCLUSION] = conclude(Tally({}, usage=str(error)))
            raise pytest.UsageError(str(error)) from error
        except LabError as error:
            conclusion = conclude(Tally({}, problems=[str(error)]))
            config.stash[CONCLUSION] = conclusion
            pytest.exit(str(error), returncode=int(conclusion.code))
        self.config = config
        if not (config.rootpath / "lab/suite/plugin.py").is_file():
            raise pytest.UsageError(
                f"{config.rootpath} is not the lab's repository, and a guest gets nothing else"
            )
        limit = config.getoption("lab_timeout")
        if limit is not None and not limit > 0:
            raise pytest.UsageError(f"--lab-timeout {limit}: a test needs more than 0 seconds")
        base = Path(config.getoption("lab_results") or config.rootpath / "lab-results")
        plays = f"-as-{self.promises.plays}" if self.promises.plays else ""
        self.launcher = Launcher(config.getoption("lab_launcher"))
        by = f"-{self.launcher}" if self.launcher is not Launcher.QEMU else ""
        self.results = new_directory(base, f"{self.kernel.upstream}{plays}{by}")
        if getattr(config.option, "xmlpath", None) is None:
            config.option.xmlpath = str(self.results / "junit.xml")
        self.book = Book()
        self.progress: Progress = make_progress(self._write_line)
        self.session: Session | None = None
        self.collected = 0
        self.left_out: dict[str, int] = {}
        self.faults: list[str] = []
        self.problems: list[str] = []
        self.over: RunOver | None = None
        self.interrupted = self.broken = False
        self.limits: dict[str, float] = {}
        self.issues: dict[str, Sequence[int]] = {}
        self.slow: set[str] = set()
        self.started = time.monotonic()

    def hopeless(self, names: Iterable[str]) -> str:
        """As `Contract.hopeless`."""
        return self.promises.hopeless(names)

    def _write_line(self, text: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            print(text, flush=True)
        else:
            reporter.ensure_newline()
            reporter.write_line(text)
            # Into a pipe, stdout is not flushed by itself, and progress is only live when seen.
            reporter.flush()

    def pytest_report_header(self) -> list[str]:
        """What is about to be asked of which kernel."""
        kernel = self.kernel
        lock = "locked" if kernel.locked else "unlocked"
        return [
            f"lab: kernel {self.promises.cell} ({kernel.package} from {kernel.source}, {lock}, "
            f"verified by {kernel.verified_by})",
            *([f"lab: booted {self.launcher.words}"] if self.launcher.words else ()),
            f"lab: results in {self.results}",
        ]

    # -- collection --------------------------------------------------------------------------

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """The lab's own tests are not for a guest."""
        return True if selection.is_lab_tests(self.config, collection_path) else None

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
        point_latest(self.results)
        for item in session.items:
            self.limits[item.nodeid] = _base_seconds(item)
            if item.get_closest_marker("slow"):
                self.slow.add(item.nodeid)
            if found := issues.issues_of(item):
                self.issues[item.nodeid] = found

    # -- running -----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run the item in the guest and report here what it said there."""
        # pytest's faulthandler plugin has just set its timer: the host only waits here.
        faulthandler.cancel_dump_traceback_later()
        if self.over is None:
            self._run(item, nextitem)
        if not self.book.has(item.nodeid):
            self._report_never_ran(item)
        return True

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        name = item.nodeid
        began, begun = time.monotonic(), False
        try:
            self._session().prepare()
            began, begun = time.monotonic(), True
            self.progress.begin(name)
            outcome = self._session().run(name, nextitem.nodeid if nextitem else None)
            record, reports = self._judge(item, outcome, time.monotonic() - began)
        except KeyboardInterrupt:
            if begun:
                seconds = time.monotonic() - began
                self.book.enter(name, Record(Verdict.LOST, seconds, "interrupted"))
            raise
        except RunOver as over:
            self._give_up(over)
            return
        except DoubleVerdict as error:
            self._give_up(RunOver(str(error)))
            return
        except LabError as error:
            self._give_up(RunOver(error.message, hint=error.hint))
            return
        self.book.enter(name, record)
        # For JUnit, where one kernel's file looks like another's.
        told = [*self._properties(), ("verdict", record.verdict.value)]
        for report in reports:
            report.user_properties += told
            item.ihook.pytest_runtest_logreport(report=report)
        self.progress.verdict(name, record)
        if why := self._session().given_up:
            self.over = RunOver(why)

    def _give_up(self, over: RunOver) -> None:
        self.over = over
        self.problems.append(over.message)
        if self.session is not None:
            self.session.close()

    def _session(self) -> Session:
        if self.session is None:
            contents = tree.contents(self.config.rootpath)
            tree_sha256, extension_sha256 = tree.hashes(contents)
            compiled = tree.bytecode(self.config.rootpath, contents)
            plan = Plan(
                selected=self.book.selected,
                subset=selection.looks_in_cache(self.config),
                arguments=selection.guest_arguments(self.config),
                tar=tree.pack(self.config.rootpath, contents | compiled),
                tree_sha256=tree_sha256,
                extension_sha256=extension_sha256,
                bytecode_sha256=tree.hashes(compiled)[0],
                environment=self.promises.environment,
                results=self.results,
                test_seconds=self._seconds,
            )
            self.session = Session(self.lab, plan, self.progress)
        return self.session

    def _seconds(self, name: str, slowdown: float) -> float:
        asked = self.config.getoption("lab_timeout")
        if asked is not None:
            return float(asked)
        return max(LEAST_SECONDS, self.limits[name] * max(1.0, slowdown))

    def _judge(
        self, item: pytest.Item, outcome: Outcome, seconds: float
    ) -> tuple[Record, list[pytest.TestReport]]:
        """The verdict of one test and the reports that show it. Raises RunOver for a lie."""
        reports = [self._report(item, data) for data in outcome.reports]
        if outcome.lost:
            # What it said before it was lost stays in the report, but cannot pass for a verdict.
            sections = [*outcome.sections, *(s for r in reports for s in r.sections)]
            why, verdict = outcome.lost, Verdict.LOST
            if (splat := outcome.splat) is not None:
                # There is no verdict of the test, but there is one of the kernel.
                why, verdict = f"{splat.line}; and {why}", Verdict.SPLAT
                sections.append(("kernel log", splat.excerpt))
            report = made_up(
                item.nodeid,
                item.location,
                f"{verdict}: {why}",
                verdict,
                keywords=item.keywords,
                sections=sections,
                seconds=seconds,
            )
            return Record(verdict, seconds, why), [report]
        complete(item.nodeid, reports)
        for report in reports:
            judge_report(
                report,
                lambda: self.session.probe if self.session else None,
                self.promises.unconfirmed,
            )
        splat = outcome.splat
        judged = self._judge_errata(
            item.nodeid, *verdict_of(reports), reports, splat.line if splat else ""
        )
        verdict, why = judged.verdict, judged.why
        if splat is not None:
            shown = next((r for r in reports if r.when == "call"), reports[-1])
            shown.sections.append(("kernel log", splat.excerpt))
            if verdict is not Verdict.FAILED and not judged.explained:
                verdict, why = Verdict.SPLAT, splat.line
                shown.outcome = "failed"
                shown.longrepr = f"the kernel complained during this test: {splat.line}"
        return Record(verdict, seconds, why), reports

    def _judge_errata(
        self,
        name: str,
        verdict: Verdict,
        why: str,
        reports: Sequence[pytest.TestReport],
        splat: str,
    ) -> errata.Judged:
        # A release without what was taken away is none that the lists could name.
        listed = not self.config.getoption("lab_unlisted") and not self.promises.plays
        judged = errata.judge_reports(
            name,
            verdict,
            why,
            reports,
            upstream=self.kernel.upstream if listed else "",
            package=self.kernel.package if listed else "",
            splat=splat,
        )
        if judged.note and self.session is not None:
            self.session.notes.append(judged.note)
        return judged

    def _report(self, item: pytest.Item, data: Any) -> pytest.TestReport:
        if data.get("$report_type") != "TestReport" or data.get("nodeid") != item.nodeid:
            raise RunOver(
                f"the guest's pytest cannot be believed: a report of {data.get('nodeid')!r} "
                f"while {item.nodeid!r} ran"
            )
        report: Any = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=data
        )
        assert isinstance(report, pytest.TestReport)
        # JSON knows no tuples; pytest's terminal insists on one for a skip's reason.
        longrepr: Any = report.longrepr
        if isinstance(longrepr, list):
            report.longrepr = (item.location[0], item.location[1] or 0, str(longrepr[-1]))
        report.location = item.location
        report.sections = [(str(head), str(text)) for head, text in report.sections]
        report.user_properties = [(str(key), value) for key, value in report.user_properties]
        return report

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
        """The trip-wire: whoever gets past our protocol must not run a guest's test on the host."""
        pytest.fail(f"{item.nodeid} was about to run on the host instead of in a guest")

    @pytest.hookimpl(optionalhook=True)
    def pytest_timeout_set_timer(self) -> bool:
        """The lab keeps the time of tests in guests; an alarm here would hit the lab itself."""
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """pytest counts as ever, but the progress lines are ours."""
        verdict = getattr(report, "lab_verdict", None)
        if verdict in (Verdict.NEVER_RAN, Verdict.XFAILED):
            category = verdict.value
        elif report.failed:
            category = "failed" if report.when == "call" else "error"
        elif report.skipped:
            category = "skipped"
        else:
            category = "passed" if report.when == "call" else ""
        # pytest prints neither letter nor word when both are empty; its closing summary, when the
        # run is over, wants the word.
        over = CONCLUSION in self.config.stash
        word = (verdict.value if verdict else category).upper() if over else ""
        return category, "", word

    # -- the end -----------------------------------------------------------------------------

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C is 130; what pytest raises in its likeness (collection errors) is not."""
        if isinstance(excinfo.value, pytest.exit.Exception):
            self.problems.append(f"pytest was told to exit: {excinfo.value}")
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):
            self.interrupted = True

    def pytest_internalerror(self, excrepr: object) -> None:
        """pytest itself broke, so nothing is proved."""
        self.broken = True
        last = str(excrepr).strip().splitlines()[-1:]
        self.problems.append(f"pytest broke: {' '.join(last)}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Shut the guest down and judge the run."""
        if session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            # pytest says what was wrong only after this; nothing ran, so there is nothing to judge.
            with suppress(OSError):
                self.results.rmdir()
            return
        if self.session is not None:
            if self.interrupted or self.broken or self.over is not None:
                self.session.close()
            else:
                self.progress.phase("shutting the guest down")
                self.session.finish()
            self.problems += self.session.problems
            self.faults += self.session.faults
        self.progress.stop()
        records = self.book.records("the run ended before it")
        rows = issues.table(self.issues, records, wanted=self._wanted())
        self.faults += issues.holes(rows, self._wanted())
        comparison = self.promises.compare(self.session.probe if self.session else None)
        self._report_surprises(comparison)
        surprises = {f"capability {s.capability}": Verdict.SURPRISE for s in comparison.surprises}
        conclusion = conclude(
            Tally(
                verdicts=self.book.verdicts() | surprises,
                problems=self.problems,
                faults=self.faults,
                interrupted=self.interrupted,
            )
        )
        self.config.stash[CONCLUSION] = conclusion
        session.exitstatus = int(conclusion.code)
        self.report = RunReport(
            kernel=self.kernel,
            row=self.promises.row,
            comparison=comparison,
            launcher=self.launcher,
            guest=self.session.last_guest if self.session else None,
            boots=self.session.boots if self.session else 0,
            expected=self.session.expected if self.session else None,
            probe=self.session.probe if self.session else None,
            records=records,
            collected=self.collected,
            left_out=dict(self.left_out),
            slow=frozenset(self.slow),
            issues=rows,
            problems=self.problems,
            faults=self.faults,
            notes=self.session.notes if self.session else (),
            tail=self.over.tail if self.over else self.session.tail if self.session else "",
            hint=self.over.hint if self.over else "",
            results=self.results,
            seconds=time.monotonic() - self.started,
            conclusion=conclusion,
        )
        write_json(self.report)

    def _report_surprises(self, comparison: Comparison) -> None:
        """For JUnit, in which a run with a surprise must not look green."""
        for surprise in comparison.surprises:
            report = made_up(
                f"{contract.FILE}::{surprise.capability}",
                (contract.FILE, 0, surprise.capability),
                f"surprise: {surprise}",
                Verdict.SURPRISE,
            )
            report.user_properties += [*self._properties(), ("verdict", Verdict.SURPRISE.value)]
            self.config.hook.pytest_runtest_logreport(report=report)

    def _properties(self) -> list[tuple[str, object]]:
        return [("kernel", self.promises.cell), ("launcher", self.launcher.value)]

    def _wanted(self) -> tuple[int, ...]:
        """The issues that must be proved: only a whole run can be blamed for a hole."""
        option = self.config.option
        narrowed = option.keyword or option.markexpr or selection.looks_in_cache(self.config)
        whole = self.config.args_source is not pytest.Config.ArgsSource.ARGS
        return issues.work_is_in() if whole and not narrowed else ()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The run's report, below pytest's own."""
        if hasattr(self, "report"):
            for line in render(self.report):
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """However the session ended, the terminal is given back."""
        self.progress.stop()


def _base_seconds(item: pytest.Item) -> float:
    """How long a test may take on this very host."""
    mark = item.get_closest_marker("timeout")
    if mark is not None and (given := [*mark.args, *mark.kwargs.values()]):
        return float(given[0])
    return BASE_SECONDS * (SLOW_FACTOR if item.get_closest_marker("slow") else 1.0)
