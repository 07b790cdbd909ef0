# SPDX-License-Identifier: MIT
"""Where what speaks for a verdict is kept, and when it happened. Only data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file, in bytes."""

    file: Path
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is kept of one test on one kernel. Times are those of `time.monotonic()`."""

    began: float
    nonce: str
    """Of the guest that it ran in."""
    output: Part | None = None
    """What pytest said of it, and what it printed; None if that is nothing."""
    kernel_log: Part | None = None
    """What the kernel wrote while it ran; None if that was not read."""
    complaints: Sequence[str] = ()
    """The lines of that by which the kernel complained."""
    hang: Part | None = None
    """What was found where it hung; None of a test that did not."""


@dataclass(slots=True)
class Life:
    """When a guest was there. Times are those of `time.monotonic()`."""

    number: int
    """From 1, in the order in which the guests of a kernel were booted."""
    began: float
    """The boot."""
    up: float = 0.0
    """Its agent had answered."""
    ended: float = 0.0
    """It was shut down, or its end was noticed; 0.0 while it is there."""
