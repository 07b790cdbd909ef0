# SPDX-License-Identifier: MIT
"""The table of errata as it is shipped: what was found on which release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

BAD, GOOD, NOT_APPLICABLE = "bad", "good", "not applicable"
DECIDED = (BAD, GOOD, NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One erratum."""

    id: str
    title: str
    spoils: str
    reproducer: str
    reported: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One release that was measured."""

    upstream: str
    package: str
    release: str
    found: Mapping[str, str | None]

    @property
    def built(self) -> bool:
        """It was built from the kernel's own sources; the others are of a distribution."""
        return self.package.startswith("local-")


@dataclass(frozen=True, slots=True)
class Table:
    """All of it; `releases` are oldest first."""

    errata: tuple[Entry, ...]
    releases: tuple[Row, ...]


@cache
def shipped() -> Table:
    """The table of this distribution."""
    table = json.loads(files("ioxide._errata").joinpath("table.json").read_text())
    return Table(
        tuple(
            Entry(e["id"], e["title"], e["spoils"], e["reproducer"], e["reported"], (*e["links"],))
            for e in table["errata"]
        ),
        tuple(
            Row(r["upstream"], r["package"], r["release"], r["found"]) for r in table["releases"]
        ),
    )
