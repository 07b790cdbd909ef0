# SPDX-License-Identifier: MIT
"""Plain `pytest`, on the kernel of this very machine: the same law as in a guest.

A run that proved nothing is not green, and what the probe observed here is held against what the
contract promises this kernel's series.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from ..errors import LabError, UsageError
from ..facts.kernel import is_debug
from ..facts.probed import Finding, Probed
from ..kernels import lock
from ..project import Project
from ..remote import sending
from ..rules import contract
from ..rules import errata as errata_lists
from ..rules.contract import Row
from . import errata

SHOWS_ONLY = ("collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow", "setupplan")
DISPROVED = 1
USAGE = 2
NOT_PROVED = 3
WORKER_OUTPUT = "lab_probes"
"""Under which a process of pytest-xdist tells the one that started it what it saw."""


class LocalSide:
    """The local mode of the plugin."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._passed = 0
        self._probes: list[Probed] = []
        """What the tests saw of this kernel, each process of pytest-xdist for itself."""
        self._silent = 0
        """So many of these processes ended without a word about that."""
        try:
            self._contract = contract.of(project)
            self._errata = errata_lists.of(project)
            if project.errata is not None:
                lock.read()  # which says whether the lists are about this kernel
        except LabError as error:
            raise pytest.UsageError(str(error)) from error
        masked = _masked(project.mask_variable, self._contract.names)
        release = contract.upstream_of_release(os.uname().release)
        row = self._contract.row(release, debug=is_debug(os.uname().release)) if release else None
        if masked and row is None:
            # There is no row to take anything from, but the run must not look like an unmasked one.
            row = Row(contract.series_of_release(release) or os.uname().release, {})
        self.row = contract.mask(row, masked) if row is not None and masked else row
        self.masked = bool(masked)

    def probe(self) -> Probed | None:
        """The probe of this machine's kernel, with what is masked; None without a probe."""
        if not self._project.probe:
            return None
        done = subprocess.run(
            sending.command(self._project.probe),
            cwd=self._project.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        try:
            probe = Probed.from_json(done.stdout)
        except ValueError as error:
            said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-3:]
            pytest.fail(
                f"the probe {' '.join(self._project.probe)} ended with status {done.returncode} "
                f"and no report: {' / '.join(said) or error}",
                pytrace=False,
            )
        if done.returncode and probe.error is None:
            pytest.fail(
                f"the probe {' '.join(self._project.probe)} printed a report without an error, and "
                f"ended with status {done.returncode}",
                pytrace=False,
            )
        self._probes.append(probe)
        return probe

    def hopeless(self, names: Iterable[str]) -> str:
        """As `Contract.hopeless`; nothing is without a contract."""
        return self._contract.hopeless(names) if self._project.contract else ""

    def unconfirmed(self, name: str, finding: Finding) -> str:
        """As `contract.unconfirmed`, of this machine."""
        return contract.unconfirmed(self.row, name, finding, own_machine=True)

    def pytest_report_header(self) -> str | None:
        """Which older kernel this one plays."""
        if self.row is None or not self.masked:
            return None
        return f"lab: this kernel is {self.row.name}, by {self._project.mask_variable}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what passed."""
        self._passed += report.when == "call" and report.passed

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process of pytest-xdist has ended: what it knows is judged here, with the rest."""
        said = getattr(node, "workeroutput", {}).get(WORKER_OUTPUT)
        if said is None:
            self._silent += 1
        else:
            self._probes += [Probed.from_object(probe) for probe in said]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Registered after the plugin, so outside of its wrapper: it judges what that noted."""
        report = yield
        # A release without what was taken away is none that the lists could name.
        unlisted = self.masked or item.config.getoption("lab_unlisted")
        errata.judge_here(report, catalogue=self._errata, unlisted=unlisted)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A session in which nothing passed is not 0, and neither is one with a surprise."""
        config = session.config
        if hasattr(config, "workerinput"):  # one of many, whose exit status nobody looks at
            config.workeroutput[WORKER_OUTPUT] = [probe.to_object() for probe in self._probes]  # type: ignore[attr-defined]
            return
        lines: dict[str, None] = {}
        if session.exitstatus == pytest.ExitCode.OK and not _shows_only(session):
            if self._silent:
                session.exitstatus = NOT_PROVED
                lines[f"a process of pytest-xdist ended without a word: exit {NOT_PROVED}"] = None
            elif not self._passed:
                session.exitstatus = NOT_PROVED
                lines[f"nothing passed, so nothing is proved: exit {NOT_PROVED}"] = None
        surprised = False
        # Only what some test asked the probe for; a session of other tests has no use for it.
        for probe in self._probes if self.row is not None else ():
            assert self.row is not None
            found = contract.compare(self.row, probe, own_machine=True)
            inherited = self.row.inherited() if found.surprises or found.notes else ""
            lines |= {f"note: {text}": None for text in (*found.notes, inherited) if text}
            lines |= {f"surprise: {surprise}": None for surprise in found.surprises}
            surprised = surprised or bool(found.surprises)
        if surprised and session.exitstatus in (pytest.ExitCode.OK, NOT_PROVED):
            session.exitstatus = DISPROVED
            lines[f"this kernel is not what the contract promises: exit {DISPROVED}"] = None
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and lines:
            reporter.ensure_newline()
            for line in lines:
                reporter.write_line(line)


def _masked(variable: str, known: Iterable[str]) -> frozenset[str]:
    """What the mask takes away; ends pytest with 2 when it cannot be meant."""
    if not variable or not os.environ.get(variable):
        return frozenset()
    try:
        return contract.taken_away(variable, os.environ[variable], known)
    except UsageError as error:
        pytest.exit(str(error), returncode=USAGE)


def _shows_only(session: pytest.Session) -> bool:
    return any(session.config.getoption(name, False) for name in SHOWS_ONLY)
