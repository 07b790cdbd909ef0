# SPDX-License-Identifier: MIT
"""What the guests of one run share: the probe's answers, and what is known of them all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..facts.probed import Probed
from ..wishes import Wishes


class Common:
    """What the sessions of one run share: the probe's answers, the numbers of guests, and which of
    them cannot be had."""

    def __init__(self) -> None:
        self.probes: dict[Wishes, Probed] = {}
        """What the kernel can do in a guest with these wishes: a module may bring what is missing
        elsewhere, and a sysctl take it away."""
        self.boots = 0
        self.refused: dict[Wishes, str] = {}
        """Why there is no guest with what some tests wish for."""
        self._counting, self._asking = threading.Lock(), threading.Lock()

    def number(self) -> int:
        """The next guest's, from 1."""
        with self._counting:
            self.boots += 1
            return self.boots

    def probed(self, wishes: Wishes, ask: Callable[[], Probed], *, wait: bool) -> Probed | None:
        """What the kernel can do in a guest with these wishes. The first session asks its guest,
        the others wait for the answer (or, without `wait`, get None meanwhile): such guests are
        the same. Where the first is told nothing, the next one asks."""
        if not self._asking.acquire(blocking=wait):
            return None
        try:
            if wishes not in self.probes:
                self.probes[wishes] = ask()
            return self.probes[wishes]
        finally:
            self._asking.release()
