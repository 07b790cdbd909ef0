# SPDX-License-Identifier: MIT
"""A test, and which of its runs it is: a selection may be run several times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a test."""

    name: str
    """The id of the test."""
    number: int = 1
    """From 1."""

    def __str__(self) -> str:
        return self.name if self.number == 1 else f"{self.name} (run {self.number})"
