# SPDX-License-Identifier: MIT
"""Keeps what pytest said of each test in one file for each kernel, for those who look later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ..facts.evidence import Evidence, Part
from .plan import Outcome

FILE = "tests.log"
KERNEL_LOG = "kernel log"
"""The section of a report that shows the kernel's complaints; kernel.log has them."""


def keep(
    directory: Path, name: str, reports: Sequence[pytest.TestReport], outcome: Outcome
) -> Evidence | None:
    """Write it behind what the file in this directory has, and tell where it is; None of a test
    that had no guest. Raises OSError."""
    text = "\n".join(_told(reports))
    output = None
    if text:
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        with (directory / FILE).open("ab") as file:
            file.write(f"==== {name}\n".encode("utf-8", "backslashreplace"))
            begin = file.tell()
            file.write(data)
        output = Part(directory / FILE, begin, begin + len(data))
    if outcome.guest is None:
        return None
    return Evidence(
        began=outcome.began,
        nonce=outcome.guest.nonce,
        output=output,
        kernel_log=outcome.kernel_log,
        complaints=[splat.line for splat in outcome.splats],
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
