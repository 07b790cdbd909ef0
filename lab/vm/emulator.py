# SPDX-License-Identifier: MIT
"""Deaths of a guest that its emulator is known to cause: they say nothing about the kernel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import qemu
from .processor import Accel, AccelKind


@dataclass(frozen=True, slots=True)
class Death:
    """How a kernel dies by a fault of the emulator."""

    signature: re.Pattern[str]
    """The first line of what its kernel says then."""
    fixed_in: tuple[int, int, int]
    """The first version of QEMU that does not do it."""
    processors: int
    """It takes at least so many."""
    reason: str


KNOWN = (
    Death(
        re.compile(r"Oops: int3"),
        (10, 0, 0),
        2,
        # Multi-threaded TCG of QEMU 7.2 runs the breakpoint byte of a static key while another
        # processor patches it: 3 of 50 boots of 7.1 and 7.2 kernels died so (lab/vm/processor.py).
        "QEMU before 10 can cause this under emulation with two processors",
    ),
)


def deaths(accel: Accel, *, cpus: int) -> Sequence[Death]:
    """Those that a guest on this machine can die. Raises MissingTool."""
    if accel.kind is not AccelKind.TCG:
        return ()
    version = qemu.version()
    return tuple(one for one in KNOWN if version < one.fixed_in and cpus >= one.processors)


def first_sign(lines: Sequence[str], possible: Sequence[Death]) -> tuple[int, str] | None:
    """The index of the line by which the emulator killed this kernel, and why; None if it did
    not."""
    for number, line in enumerate(lines):
        for death in possible:
            if death.signature.search(line):
                return number, death.reason
    return None
