# SPDX-License-Identifier: MIT
"""`lab errata`: the reproducers on many releases, a guest each, then the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..errors import GuestLost, LabError
from ..facts.errata import Finding, Measured, Seen
from ..facts.kernel import Kernel, series_of, version_key
from ..rules.contract import Contract, upstream_of_release
from ..rules.errata import Catalogue, Erratum
from ..rules.needs import REASON
from . import lists, table
from .measure import Found, Lab, Sent, measure
from .state import State


class Shelf(Protocol):
    """Where a sweep gets its kernels."""

    def guests(self, kernel: Kernel) -> Lab:
        """The way to guests of this kernel; what it boots is fetched when it boots."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure and with what."""

    catalogue: Catalogue
    contract: Contract
    kernels: Sequence[Kernel]
    sent: Sent
    results: Path
    fresh: bool = False
    """Measure also what the state has already."""

    def todo(self, state: State, kernel: Kernel) -> list[Erratum]:
        """What is to be asked of one kernel."""
        known = {} if self.fresh else state.known(kernel)
        return [erratum for erratum in self.catalogue if erratum.id not in known]

    def results_of(self, kernel: Kernel) -> Path:
        """Where the files of its guests go."""
        return self.results / kernel.release

    def measured(self, lab: Lab, todo: Sequence[Erratum], kernel: Kernel) -> Found:
        """What the reproducers of these errata find on one kernel. Raises LabError."""
        names = [erratum.reproducer for erratum in todo]
        return measure(lab, self.sent, names, self.results_of(kernel))


class Ahead:
    """The guests of a sweep: while one kernel is asked, the next one is fetched and unpacked."""

    def __init__(self, job: Job, shelf: Shelf, state: State) -> None:
        self._job, self._shelf = job, shelf
        self._todo = [kernel for kernel in job.kernels if job.todo(state, kernel)]
        self._next: dict[Kernel, Lab] = {}

    def guests(self, kernel: Kernel) -> Lab:
        """The way to guests of this kernel; each that is to be asked, in turn. Raises LabError."""
        lab = self._next.pop(kernel, None) or self._shelf.guests(kernel)
        for following in self._todo[self._todo.index(kernel) + 1 :][:1]:
            another = self._next[following] = self._shelf.guests(following)
            where = self._job.results_of(following)
            # Nobody waits for it at the end: what it leaves half done is no entry of the cache.
            threading.Thread(target=_prepare, args=(another, where), daemon=True).start()
        return lab


def _prepare(lab: Lab, where: Path) -> None:
    try:
        where.mkdir(parents=True, exist_ok=True)
        lab.prepare(where)
    except (LabError, OSError):
        pass  # its boot finds the same, and says so


@dataclass(slots=True)
class Swept:
    """What came of a sweep."""

    measured: list[Measured] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why a release, or an erratum on it, is not decided."""
    faults: list[str] = field(default_factory=list)
    """Reproducers that ended in neither way, and measurements that contradict the lists."""


def in_turn(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The order in which they are measured: the newest of each series first, then the rest, newest
    first. So a sweep that is stopped has something of every series."""
    newest: dict[str, Kernel] = {}
    rest = []
    for kernel in sorted(kernels, key=_age, reverse=True):
        if newest.setdefault(series_of(kernel.upstream), kernel) is not kernel:
            rest.append(kernel)
    return [*newest.values(), *rest]


def _age(kernel: Kernel) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    return version_key(kernel.upstream), version_key(kernel.package), kernel.release


def sweep(job: Job, shelf: Shelf, state: State, say: Callable[[str], None]) -> Swept:
    """Measure in turn, on every release of the job, what the state does not have of it.

    A release that cannot be had or booted costs only itself.
    """
    swept, ahead = Swept(), Ahead(job, shelf, state)
    for number, kernel in enumerate(job.kernels, 1):
        head = f"[{number}/{len(job.kernels)}] {kernel.upstream} ({kernel.package})"
        known = {} if job.fresh else state.known(kernel)
        todo = job.todo(state, kernel)
        begun = time.monotonic()
        try:
            found = job.measured(ahead.guests(kernel), todo, kernel) if todo else Found()
        except GuestLost as lost:
            swept.problems.append(f"{kernel.package}: no guest came through: {lost.reason}")
            say(f"{head}: {swept.problems[-1]}")
            continue
        except LabError as error:
            swept.problems.append(f"{kernel.package}: {error}")
            say(f"{head}: {swept.problems[-1]}")
            continue
        findings = known | {e.id: noticed(e, found.findings[e.reproducer]) for e in todo}
        before = state.complaints(kernel) if known else ()
        measured = Measured(
            kernel.upstream,
            kernel.package,
            kernel.release,
            {erratum.id: findings[erratum.id] for erratum in job.catalogue},
            tuple(dict.fromkeys([*before, *found.complaints])),
        )
        how = "known"
        if todo:
            state.put(measured)
            some = f" for {len(todo)} of {len(findings)}" if known else ""
            how = f"{time.monotonic() - begun:.0f} s{some}"
        swept.measured.append(measured)
        say(f"{head}: {how}: {summary(measured)}")
    _judge(job.catalogue, job.contract, swept)
    return swept


def noticed(erratum: Erratum, finding: Finding) -> Finding:
    """The finding; where the kernel itself complained of the defect, it is present."""
    its_own = [line for line in finding.splats if erratum.complained(line)]
    if finding.seen is Seen.ABSENT and its_own:
        return replace(finding, seen=Seen.PRESENT, evidence=f"{erratum.id}: {its_own[0]}")
    return finding


def _judge(catalogue: Catalogue, contract: Contract, swept: Swept) -> None:
    for row in table.in_order(swept.measured):
        swept.faults += [
            f"{row.package} complained while no reproducer ran: {line}" for line in row.complaints
        ]
        for erratum in catalogue:
            finding = row.findings[erratum.id]
            if finding.seen is None:
                swept.problems.append(
                    f"{erratum.id} is not decided on {row.package}: {finding.evidence}"
                )
            elif finding.seen is Seen.FAILED:
                swept.faults.append(
                    f"{erratum.reproducer} failed on {row.package}: {finding.evidence}"
                )
            elif finding.seen is Seen.NOT_APPLICABLE and (why := _promised(contract, row, finding)):
                swept.faults.append(f"{erratum.id} was not tried on {row.package}: {why}")
            swept.faults += [
                f"{row.package} complained of {erratum.reproducer}: {line}"
                for line in finding.splats
                if not erratum.explains(line)
            ]
    differences = lists.differences(catalogue, swept.measured)
    swept.faults += [str(difference) for difference in differences if difference.surprise]


def _promised(contract: Contract, row: Measured, finding: Finding) -> str:
    """Why the contract does not confirm that a reproducer lacked what it needs; empty if it does:
    what a kernel is promised and was not seen to have says nothing about an erratum."""
    match = REASON.match(finding.evidence)
    if match is None:
        return f"{finding.evidence!r} names no capability"
    promised = contract.row(upstream_of_release(row.upstream))
    cells = promised.cells if promised is not None else {}
    for name in match["names"].split(", "):
        if name not in cells or cells[name].present:
            what = f"promises {name}" if name in cells else f"says nothing about {name}"
            return f"{finding.evidence}, and {contract.file} {what}"
    return ""


def summary(measured: Measured) -> str:
    """`bad 001 004, not decided 007` or `good`, for a line of progress."""
    words = {Seen.PRESENT: "bad", Seen.FAILED: "failed", None: "not decided"}
    parts = []
    for seen, word in words.items():
        ids = [_short(i) for i, f in sorted(measured.findings.items()) if f.seen is seen]
        if ids:
            parts.append(f"{word} {' '.join(ids)}")
    if parts:
        return ", ".join(parts)
    absent = sum(f.seen is Seen.ABSENT for f in measured.findings.values())
    return "good" if absent else "has nothing that could be broken"


def _short(id: str) -> str:
    return id.rpartition("-")[2]


def evidence(measured: Measured) -> list[tuple[str, Finding]]:
    """What was seen, by erratum, of all that is present or failed."""
    shown = (Seen.PRESENT, Seen.FAILED, None)
    return [(i, f) for i, f in sorted(measured.findings.items()) if f.seen in shown]
