# SPDX-License-Identifier: MIT
"""What is told when a run in guests is over: its conclusion, its report, its exit code."""

from __future__ import annotations

import time

import pytest

from ..facts.verdicts import ExitCode, Tally, Verdict, conclude
from ..report import content, markdown
from ..report.summary import RunReport, render
from ..rules import errata
from ..rules.contract import Comparison
from . import issues
from .guest_run import GuestRun
from .preparation import Preparation
from .reports import is_subtest, made_up
from .stash import CONCLUSION
from .wished import typed


class RunEnd:
    """Concludes a run from its book, and tells it: to pytest, to a person, and in files."""

    def __init__(self, preparation: Preparation, run: GuestRun) -> None:
        self._preparation, self._run = preparation, run
        self._config = preparation.config
        self._interrupted = False
        self._report: RunReport | None = None
        self._started = time.monotonic()

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
            category = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        elif report.when == "call":
            category = "xpassed" if hasattr(report, "wasxfail") else "passed"
        else:
            category = ""
        # pytest prints neither letter nor word when both are empty; its closing summary, when the
        # run is over, wants the word.
        over = CONCLUSION in self._config.stash
        word = str(verdict or category).upper() if over else ""
        return category, "", word

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C is 130; what pytest raises in its likeness (collection errors) is not."""
        if isinstance(excinfo.value, pytest.exit.Exception):
            self._run.problems.append(f"pytest was told to exit: {excinfo.value}")
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):
            self._interrupted = True

    def pytest_internalerror(self, excrepr: object) -> None:
        """pytest itself broke, so nothing is proved."""
        last = str(excrepr).strip().splitlines()[-1:]
        self._run.problems.append(f"pytest broke: {' '.join(last)}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Shut the guest down and judge the run."""
        if session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            # pytest says what was wrong only after this; nothing ran, so there is nothing to judge.
            self._preparation.discard_results()
            return
        if self._config.option.collectonly:
            self._conclude_collection(session)
            return
        preparation, run = self._preparation, self._run
        notes = [*run.judge.notes]
        sessions = run.lanes.sessions if run.lanes else ()
        for one in sessions:
            run.problems += one.problems
            run.report_faults(one.faults)
            notes += one.notes
        run.progress.stop()
        records = run.book.records("the run ended before it")
        wanted = preparation.wanted()
        rows = issues.table(run.issues, records, wanted=wanted)
        run.faults += issues.holes(rows, wanted)
        comparison = preparation.promises.compare(run.probe())
        if (file := preparation.project.contract) and run.probe() is None and run.probed_others():
            notes.append(f"no usual guest was probed, so {file} was not compared")
        self._report_surprises(comparison)
        surprises = {f"capability {s.capability}": Verdict.SURPRISE for s in comparison.surprises}
        tally = Tally(
            verdicts=run.book.verdicts() | surprises,
            problems=run.problems,
            faults=run.faults,
            interrupted=self._interrupted,
        )
        conclusion = conclude(tally)
        if conclusion.code == ExitCode.PROVED and session.exitstatus != pytest.ExitCode.OK:
            # --cov-fail-under, for one, and whatever else a plugin holds against the session.
            run.faults.append(
                "every test passed, and a plugin of pytest on the host failed the session: what "
                "it says stands above"
            )
            conclusion = conclude(tally)
        self._config.stash[CONCLUSION] = conclusion
        session.exitstatus = int(conclusion.code)
        self._report = RunReport(
            kernel=preparation.kernel,
            asked=preparation.name,
            narrowed=preparation.narrowed(),
            row=preparation.promises.row,
            comparison=comparison,
            launcher=preparation.launcher,
            wishes=preparation.wishes,
            typed=typed(preparation.config).options(),
            by_make=preparation.project.by_make,
            own_wishes=run.own_wishes,
            guests=[guest for one in sessions for guest in one.guests],
            lanes=sum(1 for one in sessions if one.guests),
            identity=preparation.identity,
            probe=run.probe(),
            errata=tuple(errata.of(preparation.project)),
            records=records,
            collected=run.collected,
            left_out=dict(run.left_out),
            slow=frozenset(run.slow),
            issues=rows,
            problems=run.problems,
            faults=run.faults,
            notes=notes,
            tail=run.over.tail
            if run.over
            else "\n".join(filter(None, (one.tail for one in sessions))),
            hint=run.over.hint if run.over else "",
            results=preparation.results,
            seconds=time.monotonic() - self._started,
            conclusion=conclusion,
        )
        leg = content.leg(self._report)
        whole = content.content([leg], conclusion, self._report.seconds)
        content.write(preparation.results, whole)
        markdown.write(preparation.results, whole)

    def _conclude_collection(self, session: pytest.Session) -> None:
        """Nothing was to be run: no verdicts, no files, and no claim that anything is proved."""
        self._preparation.discard_results()
        conclusion = conclude(
            Tally(
                {},
                problems=self._run.problems,
                faults=self._run.faults,
                interrupted=self._interrupted,
                only_collected=len(session.items),
            )
        )
        self._config.stash[CONCLUSION] = conclusion
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
            told = [*self._preparation.properties(), ("verdict", Verdict.SURPRISE.value)]
            report.user_properties += told
            self._config.hook.pytest_runtest_logreport(report=report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The run's report, below pytest's own."""
        if self._report is not None:
            for line in render(self._report):
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """However the session ended, the terminal is given back."""
        self._run.progress.stop()
