# SPDX-License-Identifier: MIT
"""What came home of a test becomes its verdict, and reports that show it on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ..facts.kernel import Kernel
from ..facts.probed import Probed
from ..facts.records import Record
from ..facts.verdicts import Verdict
from ..programs.items import ProgramItem, subtests_of
from ..project import Project
from ..remote.losses import RunOver
from ..rules import errata as errata_lists
from ..rules.dmesg import Splat, summary
from . import errata
from .plan import Outcome
from .promises import Promises
from .reports import check, complete, made_up, verdict_of
from .skips import judge_report

EXCERPTS = 10
"""So many complaints of one test are shown with what follows them."""


class Judge:
    """Judges on the host, with the probe of the guest's kernel: a guest only gives evidence."""

    def __init__(
        self,
        config: pytest.Config,
        project: Project,
        kernel: Kernel,
        promises: Promises,
        probe: Callable[[str], Probed | None],
    ) -> None:
        """`probe` is that of the guest in which the test with this id ran."""
        self.notes: list[str] = []
        """What is worth a line in the report without being anybody's fault."""
        self._config = config
        self._need_proof = project.skips_need_proof
        self._errata = errata_lists.of(project)
        self._kernel = kernel
        self._promises = promises
        self._probe = probe

    def judge(
        self, item: pytest.Item, outcome: Outcome, seconds: float
    ) -> tuple[Record, list[pytest.TestReport]]:
        """The verdict of one test and the reports that show it. Raises RunOver for a lie."""
        reports = [self._report(item, data) for data in outcome.reports]
        if outcome.lost:
            # What it said before it was lost stays in the report, but cannot pass for a verdict.
            sections = [*outcome.sections, *(s for r in reports for s in r.sections)]
            sections += [(f"where it was, {r.when}", r.longreprtext) for r in reports if r.failed]
            why, verdict = outcome.lost, Verdict.LOST
            if outcome.splats:
                # There is no verdict of the test, but there is one of the kernel.
                why, verdict = f"{summary(outcome.splats)}; and {why}", Verdict.SPLAT
                sections.append(("kernel log", _excerpt(outcome.splats)))
            why = _with_memory(why, outcome)
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
        subtests = subtests_of(reports) if isinstance(item, ProgramItem) else ()
        for report in reports:
            judge_report(
                report,
                lambda: self._probe(item.nodeid),
                self._promises.unconfirmed,
                need_proof=self._need_proof,
            )
        judged = self._judge_errata(item.nodeid, *verdict_of(reports), reports, outcome.splats)
        verdict, why = judged.verdict, judged.why
        if outcome.splats:
            shown = next((r for r in reports if r.when == "call"), reports[-1])
            shown.sections.append(("kernel log", _excerpt(outcome.splats)))
            unexplained = [s for s in outcome.splats if s.line not in judged.explained]
            if unexplained and verdict is not Verdict.FAILED:
                verdict = Verdict.SPLAT
                why = _with_memory(summary(unexplained), outcome)
                vars(shown).pop("wasxfail", None)
                shown.lab_verdict = verdict  # type: ignore[attr-defined]
                shown.outcome = "failed"
                shown.longrepr = f"the kernel complained during this test: {why}"
        return Record(verdict, seconds, why, subtests), reports

    def _judge_errata(
        self,
        name: str,
        verdict: Verdict,
        why: str,
        reports: Sequence[pytest.TestReport],
        splats: Sequence[Splat],
    ) -> errata.Judged:
        # A release without what was taken away is none that the lists could name.
        listed = not self._config.getoption("lab_unlisted") and not self._promises.plays
        judged = errata.judge_reports(
            name,
            verdict,
            why,
            reports,
            catalogue=self._errata,
            upstream=self._kernel.upstream if listed else "",
            package=self._kernel.package if listed else "",
            complaints=[splat.line for splat in splats],
        )
        if judged.note:
            self.notes.append(judged.note)
        return judged

    def _report(self, item: pytest.Item, data: Any) -> pytest.TestReport:
        # A subtest's report names its type with an underscore (pytest 9, pytest-subtests).
        kind = data.get("$report_type", data.get("_report_type"))
        if kind not in ("TestReport", "SubTestReport") or data.get("nodeid") != item.nodeid:
            raise RunOver(
                f"the guest's pytest cannot be believed: a report of {data.get('nodeid')!r} "
                f"while {item.nodeid!r} ran"
            )
        try:
            check(data)
            report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=dict(data)
            )
            report.longreprtext  # noqa: B018  (made of what came; so it is seen whether it can be)
        except Exception as error:
            # Whatever pytest makes of what it did not write itself.
            raise RunOver(
                "the guest's pytest cannot be believed: it sent a report of "
                f"{item.nodeid!r} that is none: {error!r:.200}"
            ) from error
        # JSON knows no tuples; pytest's terminal insists on one for a skip's reason.
        longrepr: Any = report.longrepr
        if isinstance(longrepr, list):
            report.longrepr = (item.location[0], item.location[1] or 0, str(longrepr[-1]))
        report.location = item.location
        report.sections = [(str(head), str(text)) for head, text in report.sections]
        report.user_properties = [(str(key), value) for key, value in report.user_properties]
        return report


def _with_memory(why: str, outcome: Outcome) -> str:
    return f"{why}; {outcome.memory}" if outcome.memory else why


def _excerpt(splats: Sequence[Splat]) -> str:
    text = "\n".join(splat.excerpt for splat in splats[:EXCERPTS])
    left = len(splats) - EXCERPTS
    return f"{text}\n({left} more complaints are in kernel.log)" if left > 0 else text
