# SPDX-License-Identifier: MIT
"""What is told when a run in guests is over: its conclusion, its report, its exit code."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..facts.verdicts import Conclusion, ExitCode, Tally, Verdict, combined, conclude, good
from ..report import content, markdown, page, previous
from ..report.kernels import render_kernels
from ..report.summary import RunReport, render, rule
from ..rules import errata
from . import issues, junit, narrowing, times
from .column import Column
from .guest_run import GuestRun
from .preparation import Preparation
from .reports import is_subtest
from .stash import CONCLUSION
from .wished import typed


class RunEnd:
    """Concludes a run from its book, and tells it: to pytest, to a person, and in files."""

    def __init__(self, preparation: Preparation, run: GuestRun) -> None:
        self._preparation, self._run = preparation, run
        self._config = preparation.config
        self._interrupted = False
        self._reports: list[RunReport] = []
        self._lost = ""
        """Why the results are not in a file; empty if they are."""
        self._whole: Mapping[str, Any] = {}
        """What results.json says."""
        self._started = time.monotonic()
        self._page = ""
        """What there is to say of the run's page."""

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
        # The lines of skipped tests are of all kernels: pytest puts those of one reason together.
        node = getattr(report, "node", None)
        if word and node is not None and category != "skipped":
            word += f" [{node.gateway.id}]"
        return category, "", word

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C is 130; what pytest raises in its likeness (collection errors) is not."""
        self._run.progress.stop()
        if isinstance(excinfo.value, pytest.exit.Exception):
            self._run.problems.append(f"pytest was told to exit: {excinfo.value}")
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):
            self._interrupted = True

    def pytest_internalerror(self, excrepr: object) -> None:
        """pytest itself broke, so nothing is proved."""
        self._run.progress.stop()
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
        self._run.progress.stop()
        columns = self._preparation.columns
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR and not self._run.problems:
            # Where nobody reads the output any more, pytest does not come to say what broke.
            self._run.problems.append("pytest broke, and could not say by what")
        bad = any(not good(v) for column in columns for v in column.book.verdicts().values())
        failed_otherwise = not bad and session.exitstatus == pytest.ExitCode.TESTS_FAILED
        for column in columns:
            self._reports.append(self._conclude(column, failed_otherwise=failed_otherwise))
        missing = {
            name: Conclusion(ExitCode.NOT_PROVED, f"it is missing: {why}")
            for name, why in self._preparation.missing.items()
        }
        blamed = {
            name: one for name, one in missing.items() if not self._preparation.may_be_missing(name)
        }
        self._run.report_rest(session)
        conclusion = combined(
            {one.cell: one.conclusion for one in self._reports} | blamed,
            without=[name for name in missing if name not in blamed],
        )
        try:
            self._write(missing, conclusion)
        except OSError as error:
            conclusion = self._unwritten(conclusion, error)
        self._remember_failures()
        records = {one.cell: one.records for one in self._reports}
        times.remember(self._config, records, whole=self._preparation.whole())
        self._config.stash[CONCLUSION] = conclusion
        session.exitstatus = int(conclusion.code)

    def _conclude(self, column: Column, *, failed_otherwise: bool) -> RunReport:
        """What the run says of one kernel. `failed_otherwise` is whether pytest found something
        wrong where no test failed."""
        preparation, run = self._preparation, self._run
        notes = [*run.notes, *dict.fromkeys(column.judge.notes)]
        sessions = column.work.sessions if column.work else ()
        for one in sessions:
            column.problems += one.problems
            column.report_faults(one.faults)
            notes += one.notes
        logs = [column.log, *(log for one in sessions for log in one.logs)]
        if failed := list(dict.fromkeys(log.failed for log in logs if log.failed)):
            column.problems.append(f"not all could be kept in the run's files: {'; '.join(failed)}")
        records = column.book.records("the run ended before it")
        wanted = preparation.wanted()
        rows = issues.table(run.issues, records, wanted=wanted)
        comparison = column.promises.compare(column.probe())
        if (
            (file := preparation.project.contract)
            and column.probe() is None
            and column.probed_others()
        ):
            notes.append(f"no usual guest was probed, so {file} was not compared")
        column.report_surprises(comparison)
        surprises = {f"capability {s.capability}": Verdict.SURPRISE for s in comparison.surprises}
        faults = [*run.faults, *column.faults, *issues.holes(rows, wanted)]
        problems = [*run.problems, *column.problems]
        tally = Tally(
            verdicts=column.book.verdicts() | surprises,
            problems=problems,
            faults=faults,
            interrupted=self._interrupted,
        )
        conclusion = conclude(tally)
        if conclusion.code == ExitCode.PROVED and failed_otherwise:
            # --cov-fail-under, for one, and whatever else a plugin holds against the session.
            faults.append(
                "every test passed, and a plugin of pytest on the host failed the session: what "
                "it says stands above"
            )
            conclusion = conclude(tally)
        if column.times > 1 and conclusion.code == ExitCode.PROVED:
            conclusion = replace(conclusion, why=f"{conclusion.why}, in {column.times} runs each")
        over = column.over
        return RunReport(
            kernel=column.kernel,
            asked=column.asked,
            cell=column.cell,
            times=column.times,
            narrowed=preparation.narrowed(),
            remembered=narrowing.remembered(preparation.config),
            row=column.promises.row,
            comparison=comparison,
            launcher=preparation.launcher,
            wishes=preparation.wishes,
            typed=typed(preparation.config).options(),
            by_make=preparation.project.by_make,
            own_wishes=run.own_wishes,
            guests=[guest for one in sessions for guest in one.guests],
            lives=[life for one in sessions for life in one.lives],
            issues_of=run.issues,
            started=self._started,
            lanes=sum(1 for one in sessions if one.guests),
            identity=preparation.identity,
            probe=column.probe(),
            errata=tuple(errata.of(preparation.project)),
            records=records,
            collected=run.collected,
            left_out=dict(run.left_out),
            slow=frozenset(run.slow),
            issues=rows,
            problems=problems,
            faults=faults,
            notes=notes,
            tail=over.tail if over else "\n".join(filter(None, (one.tail for one in sessions))),
            hint=over.hint if over else "",
            results=column.results,
            seconds=time.monotonic() - self._started,
            conclusion=conclusion,
        )

    def _unwritten(self, conclusion: Conclusion, error: OSError) -> Conclusion:
        """The conclusion of a run whose results are in no file: what it has disproved stays so."""
        what = f"{error.strerror or error}" + f", {error.filename}" * bool(error.filename)
        sentence = f"the results of this run cannot be written: {what}"
        self._lost = sentence
        if conclusion.code is ExitCode.PROVED:
            return Conclusion(ExitCode.NOT_PROVED, sentence)
        return conclusion

    @pytest.hookimpl(wrapper=True, trylast=True, specname="pytest_sessionfinish")
    def pytest_lab_write_junit(self, session: pytest.Session) -> Generator[None, object, object]:
        """Innermost, so that pytest shows its report although JUnit could not be written."""
        try:
            result = yield
            file = junit.file_of(self._config)
            if file is not None and file.exists() and not self._preparation.alone:
                cells = [column.cell for column in self._preparation.columns]
                junit.split_by_kernel(file, cells)
            return result
        except OSError as error:
            conclusion = self._config.stash.get(CONCLUSION, None)
            if conclusion is None:
                raise
            conclusion = self._unwritten(conclusion, error)
            self._config.stash[CONCLUSION] = conclusion
            session.exitstatus = int(conclusion.code)
            with suppress(OSError):  # half a file would pass for one
                Path(self._config.option.xmlpath).unlink()
            with suppress(OSError):
                content.write(self._preparation.results, content.with_exit(self._whole, conclusion))
            return None

    def _write(self, missing: Mapping[str, Conclusion], conclusion: Conclusion) -> None:
        """Write results.json, and the same as Markdown."""
        base = self._preparation.results
        legs = [content.leg(report, base) for report in self._reports]
        legs += [content.leg_not_begun(name, one) for name, one in missing.items()]
        key = self._preparation.selection_key()
        seconds = time.monotonic() - self._started
        whole = content.content(legs, conclusion, seconds, selection=key)
        if not self._interrupted:
            place, before, whole["notes"] = previous.find(base.parent, base, key)
            if place is not None:
                whole["previous"] = previous.changes(place.name, before, whole)
        self._whole = whole
        content.write(base, whole)
        markdown.write(base, whole)
        self._page = page.made(base, whole)

    def _remember_failures(self) -> None:
        """For --lf: pytest forgets a failure when a report of the same id says that it passed, and
        on another kernel, or in another run, it may have; and it is not told of what was lost when
        somebody ended the run. What never ran did not fail."""
        known = self._config.pluginmanager.get_plugin("lfplugin")
        if known is None:
            return
        for report in self._reports:
            bad = [
                name
                for name, record in report.records.items()
                if not good(record.verdict) and record.verdict is not Verdict.NEVER_RAN
            ]
            known.lastfailed |= dict.fromkeys(bad, True)

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

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What there is to say of each kernel, and of all together, below pytest's own report."""
        lines = self._changes()
        for report in self._reports:
            lines += render(report, tables=self._preparation.alone)
        lines += [f"not proved: {self._lost}"] * bool(self._lost)
        if self._reports and not self._preparation.alone:
            lines += render_kernels(self._reports, self._preparation.missing)
            lines.append(f"results: {self._preparation.results}")
        lines += [self._page] * bool(self._page)
        for line in lines:
            terminalreporter.write_line(line)

    def _changes(self) -> list[str]:
        """What has changed since the run before of the same selection."""
        lines = [f"note: {text}" for text in self._whole.get("notes", ())]
        if (found := self._whole.get("previous")) is None:
            return lines
        changed = previous.told(found)
        if not changed:
            return [*lines, f"nothing has changed since {found['directory']}"]
        return [*lines, rule(f"changed since {found['directory']}"), *changed]

    def pytest_unconfigure(self) -> None:
        """However the session ended, the terminal is given back."""
        self._run.progress.stop()
