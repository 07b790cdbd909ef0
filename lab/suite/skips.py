# SPDX-License-Identifier: MIT
"""The only good skip: the probe of the kernel the test runs on says that what it needs is absent,
and the contract does not promise it.

Everything else that pytest lets a test say instead of passing or failing (a skip of its own, an
`xfail`, a module that skips itself while it is collected) becomes a failure, because in a report it
looks like success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ..facts.probed import Finding, Probed
from ..rules.needs import REASON

Source = Callable[[], Probed | None]
"""Gives the probe of the kernel the test ran on; called only when a skip must be judged."""

Unconfirmed = Callable[[str, Finding], str]
"""Why the contract does not confirm that a capability is absent; empty if it does."""


def needed(item: pytest.Item) -> tuple[str, ...]:
    """The capabilities that the item's `needs` marks name, each once, in order."""
    names = (str(arg) for mark in item.iter_markers("needs") for arg in mark.args)
    return tuple(dict.fromkeys(names))


def refusal(reason: str, probe: Source, unconfirmed: Unconfirmed | None = None) -> str:
    """Why a skip with this reason is not accepted; empty if probe and contract confirm it.

    Without `unconfirmed` there is no contract to ask, as in a guest.
    """
    match = REASON.match(reason.removeprefix("Skipped: "))
    if match is None:
        return (
            f"skip refused: {reason!r} is not of the form 'needs CAPABILITY: ...', "
            "so no probe can confirm it"
        )
    report = probe()
    if report is None:
        return f"skip refused: {reason!r} cannot be confirmed, there is no probe of this kernel"
    if report.error is not None:
        return f"skip refused: {report.error}"
    for name in match["names"].split(", "):
        finding = report.finding(name)
        if finding is None:
            return f"skip refused: the probe knows no capability {name!r}"
        if finding.observed is True:
            return f"skip refused: {name} is observed on {report.release}"
        if unconfirmed is not None and (why := unconfirmed(name, finding)):
            note = f" ({finding.note})" if finding.note else ""
            return f"skip refused: {name} is not observed on {report.release}{note}, but {why}"
    return ""


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason in a skipped report, without pytest's prefix."""
    longrepr = report.longrepr
    if isinstance(longrepr, (tuple, list)) and len(longrepr) == 3:
        return str(longrepr[2]).removeprefix("Skipped: ")
    return str(longrepr or "no reason given").removeprefix("Skipped: ")


def judge_report(
    rep: pytest.TestReport,
    probe: Source,
    unconfirmed: Unconfirmed | None = None,
    *,
    need_proof: bool = True,
) -> None:
    """Turn a report that pytest would count as harmless, but that proves nothing, into a failure.

    Idempotent, so that the guest can apply it where the test ran and the host again to what
    arrived, with the probe it holds itself and the contract. Where skips need no proof, all is as
    pytest has it.
    """
    if not need_proof:
        return
    if hasattr(rep, "wasxfail"):
        reason = rep.wasxfail
        del rep.wasxfail
        rep.outcome = "failed"
        rep.longrepr = (
            f"plain xfail refused (reason: {reason or 'none'}): a test that may fail proves nothing"
        )
    elif rep.skipped and (why := refusal(skip_reason(rep), probe, unconfirmed)):
        rep.outcome = "failed"
        rep.longrepr = why


def judge_collection(rep: pytest.CollectReport) -> None:
    """A file or class that skips itself while it is collected hides its tests: an error."""
    if rep.outcome == "skipped":
        rep.outcome = "failed"
        rep.longrepr = (
            f"skip at collection time refused: {skip_reason(rep)}; the tests in "
            f"{rep.nodeid} would vanish from every report. Mark them needs(...) or skip inside them"
        )
        rep.result = []


def judge_needs(rep: pytest.CollectReport, hopeless: Callable[[Iterable[str]], str]) -> None:
    """A test that needs what no kernel of the matrix has would be skipped for ever: an error."""
    if rep.outcome != "passed":
        return
    sentences = [
        f"{item.nodeid} will never run: {why}"
        for item in rep.result
        if isinstance(item, pytest.Item) and (names := needed(item)) and (why := hopeless(names))
    ]
    if sentences:
        rep.outcome = "failed"
        rep.longrepr = "\n".join(sentences)
        rep.result = []
