# SPDX-License-Identifier: MIT
"""What a test needs of the kernel, held against the probe of that kernel.

A guest imports it: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..facts.probed import Probed

REASON = re.compile(r"needs (?P<names>[A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*)(?:: |$)")


def missing(names: Iterable[str], report: Probed) -> str:
    """The machine-readable reason to skip a test that needs `names`; empty if it can run.

    Raises ValueError, with the sentence, if io_uring cannot be used at all or a name is unknown:
    both are failures, since neither says anything about what the kernel can do.
    """
    absent: list[str] = []
    notes: list[str] = []
    for name in names:
        if report.error is not None:
            raise ValueError(report.error)
        finding = report.finding(name)
        if finding is None:
            raise ValueError(f"needs {name!r}: the probe knows no such capability")
        if finding.observed is not True:
            absent.append(name)
            if finding.note and finding.note not in notes:
                notes.append(finding.note)
    if not absent:
        return ""
    note = f" ({'; '.join(notes)})" if notes else ""
    return f"needs {', '.join(absent)}: not observed on {report.release}{note}"
