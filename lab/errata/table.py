# SPDX-License-Identifier: MIT
"""docs/errata.md: erratum by release, with first bad and first good; the same text for the same
measurements, whoever made them and however long they took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ..errors import COMMAND
from ..facts.errata import Measured, Seen
from ..facts.kernel import series_of, version_key
from ..rules.errata import Catalogue, Erratum

_HEAD = f"""\
<!-- SPDX-License-Identifier: MIT -->
<!-- Written by `{COMMAND} errata`; edit errata.toml and the reproducers instead. -->
# Errata: there, and broken

Each erratum has a test of its own in `{{where}}/`, which shows the defect and that
what it takes to provoke it happened. `{COMMAND} errata --kernel every` boots every release that
the lab's sources offer and asks it. Nothing here is taken from a changelog.

"""
_SIGNS = {
    Seen.PRESENT: "**bad**",
    Seen.ABSENT: "good",
    Seen.NOT_APPLICABLE: "-",
    Seen.FAILED: "failed",
    None: "?",
}
_UNSEEN = """\
## Reported, and seen on no release

Each was tried by its reproducer, which passed.

"""
_LEGEND = """\
**bad**: shown on this release. good: the same test passed, also where the kernel refuses what it
asks for. -: the release has not what the erratum spoils. ?: not decided: the guest was lost, the
test is newer than the measurement, or the kernel lacks what the test takes. failed: the test ended
in neither way. *Built from source*: the kernel's own sources with a small configuration, named by
`--kernel-file` or in `$LAB_KERNEL_DIR`.
"""


def in_order(measured: Iterable[Measured]) -> list[Measured]:
    """Oldest first: by upstream version, then packaging."""
    return sorted(
        measured, key=lambda m: (version_key(m.upstream), version_key(m.package), m.release)
    )


def render(catalogue: Catalogue, measured: Iterable[Measured], *, table: str = "") -> str:
    """The whole page; `table` is the file that has the same for programs."""
    rows = in_order(measured)
    series = {series_of(row.upstream) for row in rows}
    parts = [
        _HEAD.format(where=catalogue.reproducers_in),
        f"Programs read the same in `{table}`.\n\n" if table else "",
        f"Measured on {len(rows)} releases of {len(series)} series, "
        f"{rows[0].upstream} to {rows[-1].upstream}.\n\n"
        if rows
        else "Nothing is measured yet.\n\n",
    ]
    shown = [e for e in catalogue if any(r.findings[e.id].seen is Seen.PRESENT for r in rows)]
    parts += [_section(erratum, rows) for erratum in shown]
    if others := [erratum for erratum in catalogue if erratum not in shown]:
        parts += [_UNSEEN, *(_unseen(erratum, rows) for erratum in others), "\n"]
    parts += ["## Every release\n\n", *_matrix(shown, rows), "\n", _LEGEND]
    return "".join(parts)


def _section(erratum: Erratum, rows: Sequence[Measured]) -> str:
    lines = [
        f"## {erratum.id}: {erratum.title}\n",
        f"- spoils: {erratum.capability}",
        f"- reproducer: `{erratum.reproducer}`",
    ]
    if erratum.reported:
        lines.append(f"- reported: {erratum.reported}")
    lines += [f"- <{link}>" for link in erratum.links]
    lines.append("")
    lines += [
        "| series | bad | first bad | first good after it |",
        "|---|---|---|---|",
        *(
            f"| {name} | {bad} of {bad + good} | {first_bad or '-'} | {first_good or '-'} |"
            for name, bad, good, (first_bad, first_good) in boundaries(erratum.id, rows)
        ),
    ]
    return "\n".join(lines) + "\n\n"


def _unseen(erratum: Erratum, rows: Sequence[Measured]) -> str:
    """A line of an erratum that is reported and was seen on no release: on which it was tried."""
    tried = [row for row in rows if row.findings[erratum.id].seen is Seen.ABSENT]
    spans = []
    for name, group in groupby(tried, key=lambda row: series_of(row.upstream)):
        some = [row.upstream for row in group]
        many = f"{some[0]} to {some[-1]} ({len(some)} releases)"
        spans.append(f"{name}: {many if len(some) > 1 else some[0]}")
    where = "; ".join(spans) if spans else "no release that could have it"
    links = "".join(f" <{link}>" for link in erratum.links)
    reported = f" Reported: {erratum.reported}." if erratum.reported else ""
    return (
        f"- **{erratum.id}: {erratum.title}** (`{erratum.reproducer}`).{reported}{links} "
        f"Tried on {where}.\n"
    )


def boundaries(id: str, rows: Sequence[Measured]) -> list[tuple[str, int, int, tuple[str, str]]]:
    """By series, in order: how many releases are bad and good, the first bad one, and the first
    good one after the last bad one.

    A stable series is a branch of its own: a defect comes to each and leaves each by itself.
    """
    found = []
    for name, group in groupby(rows, key=lambda row: series_of(row.upstream)):
        seen = [(row.upstream, row.findings[id].seen) for row in group]
        bad = [n for n, (_, s) in enumerate(seen) if s is Seen.PRESENT]
        good = [n for n, (_, s) in enumerate(seen) if s is Seen.ABSENT]
        if not bad and not good:
            continue
        first_bad = seen[bad[0]][0] if bad else ""
        first_good = next((seen[n][0] for n in good if bad and n > bad[-1]), "")
        found.append((name, len(bad), len(good), (first_bad, first_good)))
    return found


def _build(row: Measured) -> str:
    """What a reader has to know of a kernel that no source of the lab offers."""
    own = row.package.startswith("local-") or "-built." in row.package
    return ", built from source" if own else ""


def _matrix(catalogue: Iterable[Erratum], rows: Sequence[Measured]) -> list[str]:
    ids = [erratum.id for erratum in catalogue]
    lines = [
        "| release | " + " | ".join(id.rpartition("-")[2] for id in ids) + " |\n",
        "|---" * (len(ids) + 1) + "|\n",
    ]
    lines += [
        f"| {row.upstream} ({row.release}{_build(row)}) | "
        + " | ".join(_SIGNS[row.findings[id].seen] for id in ids)
        + " |\n"
        for row in rows
    ]
    return lines
