# SPDX-License-Identifier: MIT
"""A run on several kernels in three tables: test files, issues and capabilities, by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..facts.verdicts import Verdict, Weight, good, weight
from .summary import RunReport, rule


def render_kernels(reports: Sequence[RunReport], missing: Mapping[str, str]) -> list[str]:
    """The tables as lines of plain text; `missing` says why a kernel is in none of them."""
    lines = [rule(f"{len(reports)} kernels"), "passed, and of how many; ! is what is not good"]
    files = _in_order(name.split("::")[0] for report in reports for name in report.records)
    lines += _table("tests", files, reports, _file_cell)
    numbers = sorted({row.issue for report in reports for row in report.issues})
    if numbers:
        issue_words = [{f"#{row.issue}": row.word for row in one.issues} for one in reports]
        cells = dict(zip(map(id, reports), issue_words, strict=True))
        lines += [
            "",
            *_table(
                "issue",
                [f"#{number}" for number in numbers],
                reports,
                lambda report, name: cells[id(report)].get(name, "-"),
            ),
        ]
    names = _in_order(n for one in reports if one.probe for n in one.probe.findings)
    if names:
        lines += ["", *_table("capability", names, reports, _capability_cell)]
    lines.append("")
    lines += [f"{one.cell}: {one.conclusion}" for one in reports]
    lines += [f"{name} is missing: {why}" for name, why in missing.items()]
    return lines


def _file_cell(report: RunReport, file: str) -> str:
    verdicts = [r.verdict for name, r in report.records.items() if name.split("::")[0] == file]
    passed = sum(1 for verdict in verdicts if weight(verdict) is Weight.PROVES)
    bad = [verdict for verdict in verdicts if not good(verdict)]
    kinds = dict.fromkeys(kind for kind in Verdict if kind in bad)
    shown = "".join(f" !{bad.count(kind)} {kind}" for kind in kinds)
    return f"{passed}/{len(verdicts)}{shown}"


def _capability_cell(report: RunReport, name: str) -> str:
    found = report.probe.findings.get(name) if report.probe else None
    if found is None or found.observed is None:
        return "-"
    return "yes" if found.observed else "no"


def _table(
    title: str,
    names: Sequence[str],
    reports: Sequence[RunReport],
    cell: Callable[[RunReport, str], str],
) -> list[str]:
    rows = [[title, *(one.cell for one in reports)]]
    rows += [[name, *(cell(one, name) for one in reports)] for name in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
