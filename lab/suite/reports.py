# SPDX-License-Identifier: MIT
"""pytest's reports as the host reads them, and those it makes up itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pytest

from ..facts.verdicts import Verdict
from ..remote.losses import RunOver
from .skips import skip_reason

_OUTCOMES = frozenset({"passed", "failed", "skipped"})


def is_subtest(report: pytest.TestReport) -> bool:
    """Whether this is of a part of a test: the `subtests` fixture, or `unittest`'s subTest().

    pytest 9 has a class for it, pytest-subtests brings one to pytest 8; both name the part in
    `context`.
    """
    return hasattr(report, "context")


_PAIRS = ("sections", "user_properties")


def check(data: Mapping[str, Any]) -> None:
    """A serialized report has fields of the types that pytest gives them, as far as somebody on the
    host counts on that. Raises ValueError naming the field."""
    sound = {
        "outcome": isinstance(data["outcome"], str),
        "when": isinstance(data["when"], str),
        "keywords": isinstance(data["keywords"], dict),
        "duration": _is_time(data["duration"]),
        "start": _is_time(data.get("start", 0.0)),
        "stop": _is_time(data.get("stop", 0.0)),
        "longrepr": isinstance(data["longrepr"], str | dict | None)
        or (isinstance(data["longrepr"], list) and len(data["longrepr"]) == 3),
        **{
            name: isinstance(data[name], list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in data[name])
            for name in _PAIRS
        },
    }
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise ValueError(f"its {wrong[0]} is {data[wrong[0]]!r:.80}")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e15


def complete(name: str, reports: Sequence[pytest.TestReport]) -> None:
    """A test that ran has a setup, a teardown and, if it was set up, a call, each with an outcome
    that pytest knows: anything else would count as no failure. Subtests report between the setup
    and the end of the call. Raises RunOver."""
    if unknown := sorted({str(report.outcome) for report in reports} - _OUTCOMES):
        raise RunOver(
            f"the guest's pytest cannot be believed: {name} has the outcome {unknown[0]!r}"
        )
    phases = [report.when for report in reports if not is_subtest(report)]
    called = ["call"] if reports and reports[0].passed else []
    parts = [number for number, report in enumerate(reports) if is_subtest(report)]
    # unittest adds the parts that failed when the call is over.
    misplaced = any(
        reports[number].when != "call" or not called or not 0 < number < len(reports) - 1
        for number in parts
    )
    if phases != ["setup", *called, "teardown"] or misplaced:
        phases = [report.when for report in reports]
        raise RunOver(f"the guest's pytest cannot be believed: {name} has the phases {phases}")


def verdict_of(reports: Sequence[pytest.TestReport]) -> tuple[Verdict, str]:
    """What the reports of one test's phases amount to, and a line about why."""
    for report in reports:
        if report.failed:
            return Verdict.FAILED, _last_line(report)
    for report in reports:
        if report.skipped and hasattr(report, "wasxfail"):
            return Verdict.XFAILED, str(report.wasxfail) or "expected to fail"
        if report.skipped:
            return Verdict.SKIPPED, skip_reason(report)
    return Verdict.PASSED, ""


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    lines = str(text).strip().splitlines()
    return (f"{report.when}: " if report.when != "call" else "") + (lines[0] if lines else "")


def made_up(
    name: str,
    location: tuple[str, int | None, str],
    text: str,
    verdict: Verdict,
    *,
    when: Literal["setup", "call"] = "call",
    keywords: Iterable[str] = (),
    sections: Sequence[tuple[str, str]] = (),
    seconds: float = 0.0,
) -> pytest.TestReport:
    """A report of the host's own about something of which no guest gives one."""
    report = pytest.TestReport(
        nodeid=name,
        location=location,
        keywords=dict.fromkeys(keywords, 1),
        outcome="failed",
        longrepr=text,
        when=when,
        sections=sections,
        duration=seconds,
    )
    report.lab_verdict = verdict  # type: ignore[attr-defined]
    return report
