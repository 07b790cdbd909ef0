# SPDX-License-Identifier: MIT
"""The table of `[tool.lab.errata]`: what was found on every release, for programs.

The page shows the same. What a sweep measures is put into it, release by release, so that one that
no source offers any more keeps its row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..facts.errata import Finding, Measured, Seen
from ..rules.errata import Catalogue, Erratum
from .table import in_order

VERSION = 1
_WORDS: Mapping[Seen | None, str | None] = {
    Seen.PRESENT: "bad",
    Seen.ABSENT: "good",
    Seen.NOT_APPLICABLE: "not applicable",
    Seen.FAILED: "failed",
    None: None,
}
_SEEN = {word: seen for seen, word in _WORDS.items()}


def read(path: Path, catalogue: Catalogue) -> list[Measured]:
    """The releases of a table, each with a finding for every erratum of the catalogue, undecided
    where the table has none; none if there is no file. Raises LabError for one that is no table."""
    if not path.exists():
        return []
    try:
        table = json.loads(path.read_text())
        if table["version"] != VERSION:
            raise LabError(f"{path.name} is of version {table['version']}, read is {VERSION}")
        return [_row(entry, catalogue) for entry in table["releases"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(
            f"{path.name} is no table of errata: {error!r}", hint="git restore it"
        ) from error


def _row(entry: Mapping[str, Any], catalogue: Catalogue) -> Measured:
    found = entry["found"]
    return Measured(
        entry["upstream"],
        entry["package"],
        entry["release"],
        {e.id: Finding(_SEEN[found.get(e.id)], "") for e in catalogue},
    )


def merged(recorded: Iterable[Measured], measured: Iterable[Measured]) -> list[Measured]:
    """What was recorded with what was measured now above it, where that decided something."""
    rows = {(row.package, row.release): row for row in recorded}
    for new in measured:
        key = (new.package, new.release)
        before = rows[key].findings if key in rows else {}
        findings = {
            id: before[id] if finding.seen is None and id in before else finding
            for id, finding in new.findings.items()
        }
        rows[key] = Measured(new.upstream, new.package, new.release, findings)
    return in_order(rows.values())


def render(catalogue: Catalogue, rows: Sequence[Measured]) -> str:
    """The text of the table: an erratum or a release a line, so that a change is seen as one."""
    errata = [json.dumps(_erratum(erratum)) for erratum in catalogue]
    releases = [json.dumps(_release(row)) for row in in_order(rows)]
    return (
        f'{{\n"version": {VERSION},\n"errata": [\n'
        + ",\n".join(errata)
        + '\n],\n"releases": [\n'
        + ",\n".join(releases)
        + "\n]\n}\n"
    )


def _erratum(erratum: Erratum) -> dict[str, Any]:
    return {
        "id": erratum.id,
        "title": erratum.title,
        "spoils": erratum.capability,
        "reproducer": erratum.reproducer,
        "reported": erratum.reported,
        "links": list(erratum.links),
    }


def _release(row: Measured) -> dict[str, Any]:
    return {
        "upstream": row.upstream,
        "package": row.package,
        "release": row.release,
        "found": {id: _WORDS[finding.seen] for id, finding in sorted(row.findings.items())},
    }
