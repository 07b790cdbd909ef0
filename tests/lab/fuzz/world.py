# SPDX-License-Identifier: MIT
"""What one scenario knows of itself: its clock, its deeds, and what its guests honestly said."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from .scenario import Deed, Scenario

RELEASE = "6.12.107-fuzz"
DOUBTED = "doubted"
"""In place of the outcome of a test whose guest told another one, as it well may."""
TOO_OFTEN = 20_000
"""The host asked or listened so often in one run: it would go on for ever."""


class Clock:
    """A monotonic clock on which waiting takes no time; each lane's thread has its own, because
    one that waits for a silent guest must not use up another's time."""

    def __init__(self) -> None:
        self._own = threading.local()

    def monotonic(self) -> float:
        """As time.monotonic()."""
        now: float = getattr(self._own, "now", 1000.0)
        return now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._own.now = self.monotonic() + max(0.0, seconds)


@dataclass(slots=True)
class World:
    """One scenario as it goes."""

    scenario: Scenario
    names: tuple[str, ...]
    """The selected ids, in their order; each has one of the scenario's outcomes."""
    clock: Clock = field(default_factory=Clock)
    said: dict[str, str] = field(default_factory=dict)
    """The outcome of each test whose end a process told that had not lied until then."""
    wrongs: list[str] = field(default_factory=list)
    """What was done that forbids a green run."""
    complaints: list[tuple[str, ...]] = field(default_factory=list)
    """The telling lines of what kernels complained of, where the host can read it; of a line that
    came in pieces, the pieces: the host is to name at least one."""
    found: list[str] = field(default_factory=list)
    """What the host did to a guest that it must not."""
    _moments: Counter[str] = field(default_factory=Counter)
    _asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def deeds(self, moment: str) -> list[Deed]:
        """What is to be done now that this moment has come."""
        with self._lock:
            count = self._moments[moment]
            self._moments[moment] += 1
        return [d for d in self.scenario.deeds if d.at == moment and d.nth in (count, -1)]

    def asked(self) -> bool:
        """Note that the host asks or listens; whether it has done so for too long."""
        with self._lock:
            self._asked += 1
            if self._asked == TOO_OFTEN:
                self.found.append(f"the host asked a guest {TOO_OFTEN} times, without an end")
        return self._asked >= TOO_OFTEN

    def outcome(self, name: str) -> str:
        """What this test honestly comes to."""
        return self.scenario.outcomes[self.names.index(name)]
