# SPDX-License-Identifier: MIT
"""pytest on the host when the tests run in a guest: `lab test`, or `pytest --lab-kernel NAME`.

The items are the host's own, collected from the same tree, so that -k, -m, -x, --lf, node ids and
JUnit apply unchanged; only what is done to run one is different.  Nothing here ever runs a test on
the host: see `pytest_runtest_setup`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from ..errors import LabError, UsageError
from ..facts.probed import Probed
from ..facts.records import Record
from ..facts.verdicts import Tally, Verdict, conclude, printable
from ..remote import sending, tree
from ..remote.losses import RunOver
from ..remote.process import TREE
from ..report.progress import Progress, make_progress
from ..report.results import new_directory, point_latest
from ..report.summary import RunReport, render, write_json
from ..rules import dmesg
from ..rules.contract import Comparison
from ..vm import launcher_named
from . import issues, limits, options, selection
from .judge import Judge
from .lanes import Begun, Lanes, Ran
from .plan import Plan
from .programs import HostPrograms
from .promises import Promises
from .reconcile import Book, DoubleVerdict
from .reports import is_subtest, made_up
from .stash import CONCLUSION, PROJECT
from .wished import wishes_of

LEAST_SECONDS = 60.0
WORTH_A_GUEST = 50
"""With so many tests more, one more guest is up and through its share before one alone would be
through all of them."""


class HostSide:
    """The host's mode of the plugin."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        options.check(config)
        # On a read-only checkout --lf has no memory; that is no reason to lose the verdicts of a
        # run whose settings make errors of warnings.
        config.addinivalue_line("filterwarnings", "default::pytest.PytestCacheWarning")
        self.project = project = config.stash[PROJECT]
        try:
            self.launcher = launcher_named(config.getoption("lab_launcher"))
            self.wishes = wishes_of(config)
            self.kernel = config.hook.pytest_lab_resolve(config=config, name=name)
            self.programs = HostPrograms(config, project)
            self.promises = Promises(project, self.kernel, config.getoption("lab_as"))
            self.lab = config.hook.pytest_lab_guests(config=config, kernel=self.kernel)
        except UsageError as error:
            config.stash[CONCLUSION] = conclude(Tally({}, usage=str(error)))
            raise pytest.UsageError(str(error)) from error
        except LabError as error:
            _give_up_before(config, error)
        self.config, self.name = config, name
        limit = config.getoption("lab_timeout")
        if limit is not None and not limit > 0:
            raise pytest.UsageError(f"--lab-timeout {limit}: a test needs more than 0 seconds")
        guests = config.getoption("lab_guests")
        if guests is not None and guests < 1:
            raise pytest.UsageError(f"--lab-guests {guests}: tests need at least one guest")
        base = Path(config.getoption("lab_results") or config.rootpath / "lab-results")
        plays = f"-as-{self.promises.plays}" if self.promises.plays else ""
        by = f"-{self.launcher.name}" if self.launcher.words else ""
        try:
            self.results = new_directory(base, f"{self.kernel.upstream}{plays}{by}")
        except LabError as error:
            _give_up_before(config, error)
        if getattr(config.option, "xmlpath", None) is None and not config.option.collectonly:
            config.option.xmlpath = str(self.results / "junit.xml")
        self.book = Book()
        self.judge = Judge(config, project, self.kernel, self.promises, self._probe)
        self.progress: Progress = make_progress(self._write_line)
        self.lanes: Lanes | None = None
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
            print(printable(text, sys.stdout.encoding), flush=True)
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
            *([] if self.config.option.collectonly else [f"lab: results in {self.results}"]),
        ]

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
            point_latest(self.results)
        for item in session.items:
            self.limits[item.nodeid] = limits.base_seconds(item)
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
            lanes = self._lanes(len(items))
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

    def _take(self, item: pytest.Item, ran: Ran) -> None:
        """Judge what came home of one test, write it into the book, and report it."""
        try:
            record, reports = self.judge.judge(item, ran.outcome, ran.seconds)
            self.book.enter(item.nodeid, record)
        except RunOver as over:
            # What the kernel said while it ran is true all the same.
            words = f"the kernel complained while {item.nodeid} ran"
            self._report_faults([f"{words}: {splat.line}" for splat in ran.outcome.splats])
            self._give_up(over)
            return
        except DoubleVerdict as error:
            self._give_up(RunOver(str(error)))
            return
        # For JUnit, where one kernel's file looks like another's.
        told = [*self._properties(), ("verdict", record.verdict.value)]
        for report in reports:
            report.user_properties += told
            item.ihook.pytest_runtest_logreport(report=report)
        self.progress.verdict(item.nodeid, record)

    def _give_up(self, over: RunOver) -> None:
        self.problems.append(over.message)
        self.over = self.over or over

    def _lanes(self, tests: int) -> Lanes:
        """The guests that the tests will run in, none of them booted yet. Raises LabError."""
        self.progress.phase("preparing the kernel and the root image")
        self.lab.prepare(self.results)
        sent = sending.of(self.project)
        tree_sha256, extension_sha256 = sent.hashes()
        compiled = sent.bytecode()
        search_path = sending.search_path(self.project, TREE)
        plan = Plan(
            kernel=self.kernel,
            selected=self.book.selected,
            subset=selection.looks_in_cache(self.config),
            arguments=selection.guest_arguments(self.config),
            tar=sent.pack(compiled),
            tree_sha256=tree_sha256,
            extension_sha256=extension_sha256,
            bytecode_sha256=tree.hashes(compiled)[0],
            environment={"PYTHONPATH": search_path, **self.promises.environment},
            programs=self.programs.to_object(),
            probe=sending.command(self.project.probe) if self.project.probe else (),
            setup=sending.command(self.project.setup) if self.project.setup else (),
            allowed=dmesg.of(self.project),
            results=self.results,
            test_seconds=self._seconds,
        )
        asked = self.config.getoption("lab_guests")
        guests = asked or min(self.lab.side_by_side(), 1 + tests // WORTH_A_GUEST)
        self.lanes = Lanes(self.lab, plan, guests=guests)
        return self.lanes

    def _seconds(self, name: str, slowdown: float) -> float:
        asked = self.config.getoption("lab_timeout")
        if asked is not None:
            return float(asked)
        return max(LEAST_SECONDS, self.limits[name] * max(1.0, slowdown))

    def _probe(self) -> Probed | None:
        return self.lanes.common.probe if self.lanes else None

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
        pytest.fail(f"{item.nodeid} was about to run on the host instead of in a guest")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """pytest counts as ever, but the progress lines are ours."""
        verdict = getattr(report, "lab_verdict", None)
        if verdict in (Verdict.NEVER_RAN, Verdict.XFAILED):
            category = str(verdict)
        elif report.failed:
            category = "failed" if report.when == "call" else "error"
        elif is_subtest(report):
            category = ""  # a part of a test, which is counted as a whole
        elif report.skipped:
            category = "skipped"
        else:
            category = "passed" if report.when == "call" else ""
        # pytest prints neither letter nor word when both are empty; its closing summary, when the
        # run is over, wants the word.
        over = CONCLUSION in self.config.stash
        word = str(verdict or category).upper() if over else ""
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
        if self.config.option.collectonly:
            self._conclude_collection(session)
            return
        notes = [*self.judge.notes]
        sessions = self.lanes.sessions if self.lanes else ()
        for one in sessions:
            self.problems += one.problems
            self._report_faults(one.faults)
            notes += one.notes
        self.progress.stop()
        records = self.book.records("the run ended before it")
        rows = issues.table(self.issues, records, wanted=self._wanted())
        self.faults += issues.holes(rows, self._wanted())
        comparison = self.promises.compare(self._probe())
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
            asked=self.name,
            narrowed=self._narrowed(),
            row=self.promises.row,
            comparison=comparison,
            launcher=self.launcher,
            wishes=self.wishes,
            guests=[guest for one in sessions for guest in one.guests],
            lanes=sum(1 for one in sessions if one.guests),
            probe=self._probe(),
            records=records,
            collected=self.collected,
            left_out=dict(self.left_out),
            slow=frozenset(self.slow),
            issues=rows,
            problems=self.problems,
            faults=self.faults,
            notes=notes,
            tail=self.over.tail
            if self.over
            else "\n".join(filter(None, (one.tail for one in sessions))),
            hint=self.over.hint if self.over else "",
            results=self.results,
            seconds=time.monotonic() - self.started,
            conclusion=conclusion,
        )
        write_json(self.report)

    def _conclude_collection(self, session: pytest.Session) -> None:
        """Nothing was to be run: no verdicts, no files, and no claim that anything is proved."""
        with suppress(OSError):
            self.results.rmdir()
        conclusion = conclude(
            Tally(
                {},
                problems=self.problems,
                faults=self.faults,
                interrupted=self.interrupted,
                only_collected=len(session.items),
            )
        )
        self.config.stash[CONCLUSION] = conclusion
        session.exitstatus = int(conclusion.code)

    def _report_surprises(self, comparison: Comparison) -> None:
        """For JUnit, in which a run with a surprise must not look green."""
        for surprise in comparison.surprises:
            report = made_up(
                f"{surprise.file}::{surprise.capability}",
                (surprise.file, 0, surprise.capability),
                f"surprise: {surprise}",
                Verdict.SURPRISE,
            )
            report.user_properties += [*self._properties(), ("verdict", Verdict.SURPRISE.value)]
            self.config.hook.pytest_runtest_logreport(report=report)

    def _report_faults(self, faults: Sequence[str]) -> None:
        """What the kernel said while no test ran; for JUnit, too, as surprises are."""
        for fault in faults:
            self.faults.append(fault)
            name = f"kernel-log-{len(self.faults)}"
            report = made_up(f"lab::{name}", ("lab", 0, name), fault, Verdict.SPLAT)
            report.user_properties += [*self._properties(), ("verdict", Verdict.SPLAT.value)]
            self.config.hook.pytest_runtest_logreport(report=report)

    def _properties(self) -> list[tuple[str, object]]:
        return [("kernel", self.promises.cell), ("launcher", self.launcher.name)]

    def _narrowed(self) -> list[str]:
        """What this run was narrowed by, for the line that repeats it."""
        option = self.config.option
        words: list[str] = []
        for flag, value in (("-k", option.keyword), ("-m", option.markexpr)):
            words += [flag, value] if value else []
        named = self.config.args_source is pytest.Config.ArgsSource.ARGS
        return [*words, *([*self.config.args, *self.programs.words] if named else ())]

    def _wanted(self) -> tuple[int, ...]:
        """The issues that must be proved: only a whole run can be blamed for a hole."""
        option = self.config.option
        narrowed = option.keyword or option.markexpr or selection.looks_in_cache(self.config)
        whole = self.config.args_source is not pytest.Config.ArgsSource.ARGS
        if not whole or narrowed or not self.project.issues:
            return ()
        return issues.work_is_in(self.project.path(self.project.issues))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The run's report, below pytest's own."""
        if hasattr(self, "report"):
            for line in render(self.report):
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """However the session ended, the terminal is given back."""
        self.progress.stop()


def _give_up_before(config: pytest.Config, error: LabError) -> NoReturn:
    """End a run in which nothing could be asked of any kernel."""
    conclusion = conclude(Tally({}, problems=[str(error)]))
    config.stash[CONCLUSION] = conclusion
    pytest.exit(str(error), returncode=int(conclusion.code))
