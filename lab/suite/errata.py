# SPDX-License-Identifier: MIT
"""The verdict `xfailed(erratum)`: who may end so, and what the lists of errata.toml make of it.

A reproducer passes where the kernel is right and raises `ErratumPresent` where the defect shows;
any other exception is a failure like any test's.  In a guest only the first half of this module
works: the exception is noted in the report, and the host, which has the lists, judges.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from ..facts.errata import erratum_in
from ..facts.verdicts import Verdict

if TYPE_CHECKING:
    from ..facts.kernel import Kernel
    from ..rules.errata import Catalogue, Erratum

ATTRIBUTE = "lab_erratum"
"""Of a report: what was raised. pytest's serialized reports carry it from a guest to the host."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A reproducer's verdict, a line about why, and a line for a person to act on."""

    verdict: Verdict
    why: str
    note: str = ""
    explained: frozenset[str] = frozenset()
    """The complaints of the kernel that are the defect itself."""


def note(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Keep in the report which erratum the test raised, if it did, in its call phase."""
    vars(report).pop(ATTRIBUTE, None)
    said = erratum_in(call.excinfo.value if call.excinfo is not None else None)
    if call.when == "call" and said is not None:
        setattr(report, ATTRIBUTE, {"id": said[0], "evidence": said[1]})


def raised(reports: Sequence[pytest.TestReport]) -> Mapping[str, str] | None:
    """What a test's reports say it raised; None if nothing, or if something else failed too."""
    found = None
    for report in reports:
        said = getattr(report, ATTRIBUTE, None)
        if report.when == "call" and report.failed and isinstance(said, Mapping):
            found = {"id": str(said.get("id")), "evidence": str(said.get("evidence"))}
        elif report.failed:
            return None  # a teardown that fails is a failure, whatever the call said
    return found


def judge(
    name: str,
    verdict: Verdict,
    why: str,
    said: Mapping[str, str] | None,
    *,
    catalogue: Catalogue,
    upstream: str,
    package: str,
) -> Judged:
    """What the lists make of one test's verdict on one kernel.

    `said` is what `raised` found.  `upstream` and `package` are empty for a kernel that is no
    release the lists could name.
    """
    if said is not None:
        erratum = catalogue.get(said["id"])
        if erratum is None:
            return Judged(
                Verdict.FAILED, f"it raised ErratumPresent({said['id']!r}), unknown to errata.toml"
            )
        if erratum.reproducer != name:
            return Judged(
                Verdict.FAILED,
                f"it raised ErratumPresent({erratum.id!r}), "
                f"as only {erratum.reproducer} may, the reproducer of that erratum",
            )
        return _present(erratum, said["evidence"], upstream, package)
    erratum = catalogue.reproduced_by(name)
    if erratum is None or verdict not in (Verdict.PASSED, Verdict.SKIPPED):
        return Judged(verdict, why)
    return _absent(erratum, verdict, why, upstream, package)


def _present(erratum: Erratum, evidence: str, upstream: str, package: str) -> Judged:
    why = f"{erratum.id} is present: {erratum.title}: {evidence}"
    release = package or upstream
    expected = erratum.expected(upstream, package)
    if expected is False:
        return Judged(
            Verdict.SURPRISE,
            f"{why}; errata.toml lists {release} as known_good: move {upstream!r} to known_bad",
        )
    unlisted = f"; no list names {release}: add {upstream!r} to known_bad" if upstream else ""
    return Judged(Verdict.XFAILED, why, why + (unlisted if expected is None else ""))


def _absent(erratum: Erratum, verdict: Verdict, why: str, upstream: str, package: str) -> Judged:
    release = package or upstream
    expected = erratum.expected(upstream, package)
    if expected is True:
        how = "its reproducer passed" if verdict is Verdict.PASSED else why
        return Judged(
            Verdict.SURPRISE,
            f"{erratum.id} is absent ({how}), and errata.toml lists {release} as known_bad: "
            f"move {upstream!r} to known_good",
        )
    if expected is None and upstream and verdict is Verdict.PASSED:
        return Judged(
            verdict,
            why,
            f"{erratum.id} is absent on {release}, which no list of it names: "
            f"add {upstream!r} to its known_good",
        )
    return Judged(verdict, why)


def judge_reports(
    name: str,
    verdict: Verdict,
    why: str,
    reports: Sequence[pytest.TestReport],
    *,
    catalogue: Catalogue,
    upstream: str,
    package: str,
    complaints: Sequence[str] = (),
) -> Judged:
    """As `judge`, and let the reports say what came of it.

    `complaints` are the lines by which the kernel complained while the test ran.  A complaint of
    the very defect counts as its reproducer's finding it; one of what the reproducer does, by a
    kernel that has not the defect, counts for nothing.
    """
    said = raised(reports)
    erratum = catalogue.reproduced_by(name)
    explained = [line for line in complaints if erratum is not None and erratum.explains(line)]
    own = [line for line in explained if erratum is not None and erratum.complained(line)]
    if erratum is not None and own and verdict is Verdict.PASSED:
        said = {"id": erratum.id, "evidence": own[0]}
    judged = judge(
        name, verdict, why, said, catalogue=catalogue, upstream=upstream, package=package
    )
    judged = replace(judged, explained=frozenset(explained))
    if judged.verdict is not verdict or said is not None:
        shown = next((report for report in reports if report.when == "call"), reports[-1])
        _show(shown, judged)
    return judged


def judge_here(report: pytest.TestReport, *, catalogue: Catalogue, unlisted: bool) -> None:
    """Judge one report of a session on this very machine, in place.

    Only a kernel that the lab has a release of can be named by the lists.
    """
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return
    verdict = {"passed": Verdict.PASSED, "skipped": Verdict.SKIPPED}.get(
        report.outcome, Verdict.FAILED
    )
    reproducer = catalogue.reproduced_by(report.nodeid) is not None
    if raised([report]) is None and not reproducer:
        return
    kernel = None if unlisted else _own_kernel()
    judge_reports(
        report.nodeid,
        verdict,
        "the probe says so" if report.skipped else "",
        [report],
        catalogue=catalogue,
        upstream=kernel.upstream if kernel else "",
        package=kernel.package if kernel else "",
    )


@cache
def _own_kernel() -> Kernel | None:
    from .. import kernels

    release = os.uname().release
    return next((kernel for kernel in kernels.known() if kernel.release == release), None)


def _show(report: pytest.TestReport, judged: Judged) -> None:
    if judged.verdict is Verdict.XFAILED:
        # As pytest's own xfail, which is refused everywhere else, so that it is shown as one.
        report.outcome = "skipped"
        report.wasxfail = judged.why
        # pytest-xdist sends the report on, and knows no enumerations.
        report.lab_verdict = judged.verdict.value  # type: ignore[attr-defined]
    elif judged.verdict in (Verdict.SURPRISE, Verdict.FAILED):
        report.outcome = "failed"
        report.longrepr = judged.why
