# SPDX-License-Identifier: MIT
"""What a reproducer of an erratum says, and what was found on one release.

A guest imports it: standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ErratumPresent(Exception):
    """The kernel shows this erratum; raised by its own reproducer and by nothing else.

    :param id: as in errata.toml, "IOX-ERR-001".
    :param evidence: what was seen, in one line.
    """

    def __init__(self, id: str, evidence: str) -> None:
        super().__init__(f"{id}: {evidence}")
        self.id = id
        self.evidence = evidence


class Seen(StrEnum):
    """What a reproducer found on one kernel."""

    PRESENT = "present"
    ABSENT = "absent"
    NOT_APPLICABLE = "n/a"
    """The probe confirms that this kernel has not what the reproducer needs."""
    FAILED = "failed"
    """The reproducer ended in another way: it says nothing about the erratum."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one reproducer found on one release."""

    seen: Seen | None
    """None when it was not decided: the guest was lost, or the reproducer hung or died."""
    evidence: str
    splats: tuple[str, ...] = ()
    """The lines by which the kernel complained meanwhile."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One release and what the reproducers found on it, by erratum."""

    upstream: str
    package: str
    release: str
    findings: Mapping[str, Finding]
