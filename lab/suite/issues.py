# SPDX-License-Identifier: MIT
"""Issue x kernel: which issues' promises were proved on this kernel, and where a hole is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ..facts.issues import IssueRow
from ..facts.records import Record
from ..facts.verdicts import Verdict, Weight, weight


def issues_of(item: pytest.Item) -> tuple[int, ...]:
    """The issues an item stands for. Raises pytest.UsageError for a mark without a number."""
    numbers = [arg for mark in item.iter_markers("issue") for arg in mark.args]
    for number in numbers:
        if not isinstance(number, int):
            raise pytest.UsageError(f"{item.nodeid}: issue({number!r}) is not an issue's number")
    return tuple(dict.fromkeys(numbers))


def work_is_in(path: Path) -> tuple[int, ...]:
    """The issues whose work is in, so that a kernel that could prove them must."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(int(line) for line in lines if line)


def table(
    issues: Mapping[str, Sequence[int]], records: Mapping[str, Record], *, wanted: Sequence[int]
) -> list[IssueRow]:
    """A row for each issue that a test names or that is `wanted`, in order."""
    numbers = {number for found in issues.values() for number in found} | set(wanted)
    rows = []
    for number in sorted(numbers):
        mine = [records[n].verdict for n, found in issues.items() if number in found]
        rows.append(
            IssueRow(
                issue=number,
                tests=len(mine),
                proved=mine.count(Verdict.PASSED),
                absent=mine.count(Verdict.SKIPPED),
                bad=sum(1 for verdict in mine if weight(verdict) is Weight.DISPROVES),
                unproved=sum(1 for verdict in mine if weight(verdict) is Weight.UNPROVES),
            )
        )
    return rows


def holes(rows: Sequence[IssueRow], wanted: Sequence[int]) -> list[str]:
    """A sentence for each wanted issue of which this kernel proved nothing although it could."""
    return [
        f"issue {row.issue} is in, but no test of it passed here"
        for row in rows
        if row.issue in wanted and row.word == "hole"
    ]
