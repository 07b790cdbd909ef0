# SPDX-License-Identifier: MIT
"""One program that is a test: what the host tells the guest of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .judgement import Format

DEFAULT_SECONDS = 45.0
"""How long a program may take on this very host; kselftest's own default."""


@dataclass(frozen=True, slots=True)
class ProgramTest:
    """A program, where it runs, and how it is judged. Paths are relative to the tree's root."""

    name: str
    """Its id: `GROUP/NAME`."""
    path: str
    directory: str
    """Where it runs."""
    format: Format = Format.AUTO
    seconds: float = DEFAULT_SECONDS
    """How long it may take."""
    scaled: bool = True
    """Whether that is on the host, to be multiplied by the guest's slowdown."""

    @property
    def group(self) -> str:
        """The `name` of its table."""
        return self.name.partition("/")[0]

    def limit(self, slowdown: float) -> float:
        """How many seconds it may take in a guest."""
        return self.seconds * max(1.0, slowdown) if self.scaled else self.seconds

    def to_object(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_object(cls, fields: Mapping[str, Any]) -> ProgramTest:
        """The inverse of `to_object`."""
        return cls(**{**fields, "format": Format(fields["format"])})
