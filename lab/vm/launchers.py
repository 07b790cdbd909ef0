# SPDX-License-Identifier: MIT
"""The launchers there are; here one is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from .direct import DirectQemu
from .launcher import Launcher
from .virtme import VirtmeNg

USUAL: Launcher = DirectQemu()
LAUNCHERS = {launcher.name: launcher for launcher in (USUAL, VirtmeNg())}


def launcher_named(name: str, leave_out: Sequence[str] = ()) -> Launcher:
    """The launcher that is called so; `leave_out` as `DirectQemu`. Raises UsageError."""
    if name == DirectQemu.name and leave_out:
        return DirectQemu(leave_out)
    found = LAUNCHERS.get(name)
    if found is None:
        raise UsageError(f"there is no launcher {name!r}", hint=f"one of {', '.join(LAUNCHERS)}")
    return found
