# SPDX-License-Identifier: MIT
"""Deaths of a guest that its emulator is known to cause: they say nothing about the kernel."""

from __future__ import annotations

from collections.abc import Sequence

from .. import arch
from ..arch import Death
from . import qemu
from .processor import Accel, AccelKind


def deaths(accel: Accel, *, cpus: int) -> Sequence[Death]:
    """Those that a guest on this machine can die. Raises MissingTool."""
    if accel.kind is not AccelKind.TCG:
        return ()
    version = qemu.version()
    known = arch.here().deaths
    return tuple(one for one in known if version < one.fixed_in and cpus >= one.processors)


def first_sign(lines: Sequence[str], possible: Sequence[Death]) -> tuple[int, str] | None:
    """The index of the line by which the emulator killed this kernel, and why; None if it did
    not."""
    for number, line in enumerate(lines):
        for death in possible:
            if death.signature.search(line):
                return number, death.reason
    return None
