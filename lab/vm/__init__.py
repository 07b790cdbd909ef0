# SPDX-License-Identifier: MIT
"""How one guest boots and how to talk to it."""

from __future__ import annotations

from . import streams, terminal
from .accel import choose_accel
from .devices import NetworkPair
from .direct import boot
from .events import Completed, Control, Event, Exited, Output, Stream
from .guest import Guest, Process
from .launcher import Launcher
from .launchers import LAUNCHERS, USUAL, launcher_named
from .launchpad import Launchpad
from .machine import Machine
from .processor import Accel, AccelKind
from .rootfs import build_rootfs

__all__ = [
    "LAUNCHERS",
    "USUAL",
    "Accel",
    "AccelKind",
    "Completed",
    "Control",
    "Event",
    "Exited",
    "Guest",
    "Launcher",
    "Launchpad",
    "Machine",
    "NetworkPair",
    "Output",
    "Process",
    "Stream",
    "boot",
    "build_rootfs",
    "choose_accel",
    "launcher_named",
    "streams",
    "terminal",
]
