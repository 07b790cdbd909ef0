# SPDX-License-Identifier: MIT
"""What the probe said about the kernel the tests run on, as the suite reads it.

The lab knows of a repository's probe only the JSON that it prints.  Standard library only: the
guest imports this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One capability: what the kernel declares, what it accepts, what it was seen to do."""

    declared: bool | None
    accepted: bool | None
    observed: bool | None
    evidence: Mapping[str, Any]
    note: str


@dataclass(frozen=True, slots=True)
class Probed:
    """One kernel's probe."""

    release: str
    """`uname -r` of the probed kernel."""
    error: str | None
    """Why io_uring cannot be used at all, as a sentence; None if it can."""
    findings: Mapping[str, Finding]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the kernel says and takes apart from capabilities; nothing is promised about it."""

    def finding(self, name: str) -> Finding | None:
        """The finding about the capability `name`, None if the probe knows no such capability."""
        return self.findings.get(name)

    @classmethod
    def from_json(cls, text: str | bytes) -> Probed:
        """Read a probe's JSON. Raises ValueError naming what is wrong with it."""
        return cls.from_object(json.loads(text))

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> Probed:
        """As `from_json`, of the decoded object."""
        try:
            error = raw["error"]
            return cls(
                release=str(raw["release"]),
                error=None if error is None else str(error),
                findings={str(n): _finding(f) for n, f in raw["capabilities"].items()},
                facts={str(n): str(fact) for n, fact in raw.get("facts", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a probe's JSON, {error!r}: {str(raw)[:200]}") from error

    def to_object(self) -> dict[str, Any]:
        """The JSON object it was read from."""
        return {
            "release": self.release,
            "error": self.error,
            "capabilities": {
                name: {
                    "declared": found.declared,
                    "accepted": found.accepted,
                    "observed": found.observed,
                    "evidence": dict(found.evidence),
                    "note": found.note,
                }
                for name, found in self.findings.items()
            },
            "facts": dict(self.facts),
        }


def _finding(raw: Mapping[str, Any]) -> Finding:
    return Finding(
        declared=_maybe(raw["declared"]),
        accepted=_maybe(raw["accepted"]),
        observed=_maybe(raw["observed"]),
        evidence=dict(raw["evidence"]),
        note=str(raw["note"]),
    )


def _maybe(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is neither true, false nor null")
