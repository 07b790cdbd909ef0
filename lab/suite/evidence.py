# SPDX-License-Identifier: MIT
"""Keeps what pytest said of each test in one file for each kernel, for those who look later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ..facts.evidence import Evidence, Part
from ..remote.log import Log
from .plan import Outcome

FILE = "tests.log"
KERNEL_LOG = "kernel log"
"""The section of a report that shows the kernel's complaints; kernel.log has them."""


def keep(
    log: Log, name: str, reports: Sequence[pytest.TestReport], outcome: Outcome
) -> Evidence | None:
    """Write it behind what the file has, and tell where it is; None of a test that had no guest."""
    text = "\n".join(_told(reports))
    output = None
    if text:
        head = f"==== {name}\n".encode("utf-8", "backslashreplace")
        written = log.append(head + f"{text}\n".encode("utf-8", "backslashreplace"))
        if written is not None:
            output = Part(written.file, written.begin + len(head), written.end)
    if outcome.guest is None:
        return None
    return Evidence(
        began=outcome.began,
        nonce=outcome.guest.nonce,
        output=output,
        kernel_log=outcome.kernel_log,
        complaints=[splat.line for splat in outcome.splats],
        hang=outcome.hang,
    )


def _told(reports: Sequence[pytest.TestReport]) -> Iterator[str]:
    """What failed, phase by phase, then each section once: a report repeats those before it."""
    for report in reports:
        if report.longrepr and (report.failed or hasattr(report, "wasxfail")):
            yield f"-- {report.when}: {report.outcome}"
            yield report.longreprtext
    sections = (section for report in reports for section in report.sections)
    for head, text in dict.fromkeys(sections):
        if text and head != KERNEL_LOG:
            yield f"-- {head}"
            yield text
