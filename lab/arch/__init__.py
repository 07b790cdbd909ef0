# SPDX-License-Identifier: MIT
"""Everything that the lab knows of one kind of machine, in one place for each.

A guest is of the same kind as this host, whose Python it runs. Another kind of machine takes a
module beside `x86_64` and a place in `KNOWN`.
"""

from __future__ import annotations

import platform

from ..errors import LabError
from .model import Arch, Death, Entry, Version
from .x86_64 import X86_64

__all__ = ["KNOWN", "Arch", "Death", "Entry", "Version", "here"]

KNOWN: tuple[Arch, ...] = (X86_64(),)


def here() -> Arch:
    """This machine's. Raises LabError where there can be no guests."""
    machine = platform.machine()
    for arch in KNOWN:
        if arch.name == machine:
            return arch
    raise LabError(
        f"the lab boots no guests on a machine of the kind {machine}",
        hint=f"it knows {', '.join(arch.name for arch in KNOWN)}",
    )
