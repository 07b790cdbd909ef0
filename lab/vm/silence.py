# SPDX-License-Identifier: MIT
"""A guest that does not speak: how long that is in order, and what is said of it when it is not.

A healthy boot is quiet for a second and a half, under emulation on a busy machine for much longer;
a hung one is quiet for ever.  What tells them apart is that nothing came from any port *and* that
the processors get nowhere.  Processors that are idle get nowhere either, and most often wait for
this host: that takes a minute to count as a hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .machine import Machine
from .standing import Standing

BEFORE_FIRST_S = 6.0
"""How long a machine that has a processor to itself may take to its first byte, in seconds."""
BETWEEN_S = 12.0
"""How long it may say nothing once it has said something, in seconds."""
IDLE_S = 60.0
"""How long it may say nothing while its processors have nothing to do, in seconds. They wait for
something that the machine does itself: with virtme-ng each file comes from this host over 9p, whose
disk may be busy. A guest that nothing will ever wake looks the same."""
AGAIN_S = 2.0
"""How long until its processors are looked at once more, when they got somewhere."""
LOOKS, APART_S = 6, 0.2


class Silence:
    """Watches a machine from its start to its agent's first word."""

    def __init__(self, machine: Machine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.standing: Standing | None = None
        """Where the processors stood when the guest was given up."""
        self._machine = machine
        self._clock = clock
        self._came = 0
        self._since, self._waited = clock(), 0.0
        self._look_at = BEFORE_FIRST_S

    @property
    def lifeless(self) -> bool:
        """Whether not one byte has come from any port."""
        return self._bytes() == 0

    def why(self) -> str:
        """Why the guest is to be given up, as a sentence; empty while there is hope."""
        came = self._bytes()
        if came != self._came:
            self._came = came
            self._since, self._waited = self._clock(), self._busy()
            self._look_at = BETWEEN_S
            return ""
        if (hypervisor := self._machine.hypervisor) is None:
            return ""  # a quiet machine and a hung one cannot be told apart; there is the deadline
        # What the host's other work took from QEMU is not the guest's silence.
        quiet = self._clock() - self._since - max(0.0, self._busy() - self._waited)
        if quiet < self._look_at:
            return ""
        standing = hypervisor.describe(times=LOOKS, apart_s=APART_S)
        if not standing.stuck or (standing.idle and quiet < IDLE_S):
            self._look_at = quiet + AGAIN_S
            return ""
        self.standing = standing
        said = self._machine.console.tail(1).strip()
        last = f", the last line was {said!r}" if said else ""
        what = f"{came} bytes came from its ports{last}" if came else "not one byte came from it"
        return f"the guest shows no sign of life for {quiet:.0f} s: {what}, and {standing}"

    def _bytes(self) -> int:
        return sum(_size(path) for path in (self._machine.console.path, self._machine.stray))

    def _busy(self) -> float:
        return self._machine.process.seconds_without_processor()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
