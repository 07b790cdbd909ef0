# SPDX-License-Identifier: MIT
"""What one issue came to on one kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IssueRow:
    """One issue on one kernel."""

    issue: int
    tests: int
    proved: int
    absent: int
    """Tests skipped because the kernel lacks what they need."""
    bad: int
    unproved: int
    """Tests that never ran to their end."""

    @property
    def word(self) -> str:
        """What the table's cell says."""
        if self.bad:
            return "disproved"
        if self.tests and self.absent == self.tests:
            return "absent here"
        if self.proved and self.proved + self.absent == self.tests:
            return "proved"
        if self.proved:
            return "in part"
        return "not proved" if self.unproved else "hole"
