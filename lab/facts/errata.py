# SPDX-License-Identifier: MIT
"""What a reproducer of an erratum says, and what was found on one release.

A guest imports it: standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PRESENT = "ErratumPresent"
"""What the exception is called by which a reproducer says that the kernel shows its erratum."""

NOT_TRIED = "NotTried"
"""What the exception is called by which it says that it may not, or cannot, provoke it here."""


def erratum_in(error: BaseException | None) -> tuple[str, str] | None:
    """The erratum's id and the evidence, if this exception says that one is present.

    The class is the repository's own, so that reproducers need no lab to run: it is called
    ErratumPresent and has an `id` and an `evidence`, one line.
    """
    if error is None or not any(kind.__name__ == PRESENT for kind in type(error).__mro__):
        return None
    return str(getattr(error, "id", "")), str(getattr(error, "evidence", ""))


def is_not_tried(error: BaseException) -> bool:
    """Whether this exception says that the erratum could not be provoked; its text says why."""
    return any(kind.__name__ == NOT_TRIED for kind in type(error).__mro__)


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
    """None when it was not decided: the guest was lost, the reproducer hung or died, or the kernel
    lacks what it takes."""
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
    complaints: tuple[str, ...] = ()
    """What its kernel complained of while no reproducer ran: as it booted, say."""
