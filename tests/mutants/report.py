# SPDX-License-Identifier: MIT
"""What is printed: a line as each mutant is judged, then the table, then what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutants.verdict import Kind, Verdict

_WIDTH = 150


def _one_line(text: str, width: int = _WIDTH) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def line(verdict: Verdict, number: int, of: int) -> str:
    """Progress, as soon as one is judged."""
    mutant = verdict.mutant
    text = f"[{number:3}/{of}] {verdict.kind:12} {mutant.id} ({verdict.seconds:.1f} s)"
    return f"{text}: {_one_line(verdict.reason)}" if verdict.reason else text


def summary(verdicts: Sequence[Verdict], seconds: float) -> str:
    """Issue, mutant, test and assertion of each; then every one that is not red, with details."""
    lines = ["", "issue      mutant", "           test: what it said", ""]
    for verdict in sorted(verdicts, key=lambda item: (item.mutant.breaks, item.mutant.id)):
        mutant = verdict.mutant
        lines.append(f"{mutant.breaks:10} {mutant.id}: {mutant.what}")
        lines += [f"           {node}: {_one_line(said)}" for node, said in verdict.seen]
    bad = [verdict for verdict in verdicts if not verdict.good]
    for verdict in bad:
        lines += ["", f"{verdict.kind}: {verdict.mutant.id}: {verdict.reason}"]
        lines += [f"    {part}" for part in verdict.detail.splitlines()[-40:]]
    absent = [verdict for verdict in verdicts if verdict.kind is Kind.ABSENT]
    red = len(verdicts) - len(bad) - len(absent)
    lines += ["", f"{red} of {len(verdicts)} mutants red by their own assertion, {seconds:.0f} s"]
    if absent:
        lines[-1] += "; absent here: " + ", ".join(verdict.mutant.id for verdict in absent)
    if bad:
        lines[-1] += "; not so: " + ", ".join(verdict.mutant.id for verdict in bad)
    return "\n".join(lines)
