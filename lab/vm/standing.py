# SPDX-License-Identifier: MIT
"""Where a machine's processors stand, for one that has fallen silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 256
"""Bytes: a processor that is never seen farther from where it was makes no progress."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the processors were, each time that QEMU was asked."""

    places: Sequence[Sequence[int]]
    """By the time asked, the address of each processor's next instruction."""
    halted: bool
    """Whether all of them waited for an interrupt when last asked."""
    text: str
    """The machine's state and the registers when last asked; or why QEMU did not tell."""
    idle: bool = False
    """Whether all of them waited for an interrupt, and would take one, each time: they may wait for
    a disk or a file of this host."""

    @property
    def stuck(self) -> bool:
        """Whether no processor got anywhere; False where QEMU did not tell."""
        if not self.places or not self.places[0]:
            return False
        return all(max(seen) - min(seen) < NEAR for seen in zip(*self.places, strict=True))

    def __str__(self) -> str:
        if not self.places or not self.places[-1]:
            return self.text.strip().splitlines()[0]
        where = ", ".join(f"{place:#x}" for place in self.places[-1])
        many = "processors stand" if len(self.places[-1]) > 1 else "processor stands"
        return f"the {many} at {where}" + (
            ", idle" if self.idle else ", halted" if self.halted else ""
        )
