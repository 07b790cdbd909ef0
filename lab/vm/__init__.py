# SPDX-License-Identifier: MIT
"""How one guest boots and how to talk to it."""

from __future__ import annotations

from .accel import choose_accel
from .devices import NetworkPair
from .events import Completed, Control, Event, Exited, Output, Stream
from .guest import Guest, Process, boot
from .launcher import Launcher, Launchpad
from .processor import Accel, AccelKind
from .rootfs import build_rootfs

__all__ = [
    "Accel",
    "AccelKind",
    "Completed",
    "Control",
    "Event",
    "Exited",
    "Guest",
    "Launcher",
    "Launchpad",
    "NetworkPair",
    "Output",
    "Process",
    "Stream",
    "boot",
    "build_rootfs",
    "choose_accel",
]
