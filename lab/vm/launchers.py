# SPDX-License-Identifier: MIT
"""The launchers there are; here one is chosen."""

from __future__ import annotations

from ..errors import UsageError
from .direct import DirectQemu
from .launcher import Launcher
from .virtme import VirtmeNg

USUAL: Launcher = DirectQemu()
LAUNCHERS = {launcher.name: launcher for launcher in (USUAL, VirtmeNg())}


def launcher_named(name: str) -> Launcher:
    """The launcher that is called so. Raises UsageError."""
    found = LAUNCHERS.get(name)
    if found is None:
        raise UsageError(f"there is no launcher {name!r}", hint=f"one of {', '.join(LAUNCHERS)}")
    return found
