# SPDX-License-Identifier: MIT
"""Finds reactors that something blocks: a stdlib future, a joined thread, `time.sleep()`.

A blocked reactor cannot see that itself.  So one thread per process checks whether each reactor,
and in the pool modes each worker, comes back to wait for events.  It checks a few times per limit
while any of them is active, and sleeps while none is; the first tick after that wakes it.  A tick
pays for reading one flag, an idle process for nothing, and no request for a system call.

The check needs the GIL.  Code in C that holds the GIL all the time is found only when it releases
the GIL, and not at all if the reactor has come back by then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Protocol

logger = logging.getLogger("ioxide")

_CHECKS = 4  # per limit: a stall is reported at most a quarter of its limit late


class Ticking(Protocol):
    """What can be watched: a thread that waits for events, runs callbacks, and waits again."""

    @property
    def thread(self) -> threading.Thread: ...

    @property
    def enters(self) -> int:
        """How often it has waited; the number changes while it is active."""

    @property
    def tick(self) -> int | None:
        """Which tick's callbacks run now; None while it waits."""

    def count_stall(self) -> None: ...

    def tell_record(self, why: str) -> None:
        """Log the flight recorder of its ring, if there is one."""


class _Watch:
    """What the last check has found of one thread."""

    def __init__(self, ticking: Ticking, limit: float) -> None:
        self.limit = limit
        self._ticking = ticking
        self._enters = -1
        self._tick: int | None = None
        self._since = 0.0
        self._told = False

    def check(self) -> bool:
        """Whether it was active since the last check, or is now; reports a stall."""
        enters, tick, now = self._ticking.enters, self._ticking.tick, time.monotonic()
        moved = enters != self._enters
        self._enters = enters
        if tick is None or tick != self._tick:
            self._tick, self._since, self._told = tick, now, False
        elif now - self._since >= self.limit and not self._told:
            self._told = True
            self._tell(now - self._since)
        return moved or tick is not None

    def _tell(self, seconds: float) -> None:
        self._ticking.count_stall()
        thread = self._ticking.thread
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "  (it has just ended)\n"
        logger.warning(
            "%s has not come back to its loop for %d ms (stall_warning_ms=%d), and everything else "
            "on it waits. It is here:\n%s",
            thread.name,
            seconds * 1000,
            self.limit * 1000,
            stack,
        )
        self._ticking.tell_record("its callbacks keep it")


class Watchdog:
    """The thread that watches all reactors and workers of the process, while there are any."""

    def __init__(self) -> None:
        self.asleep = False
        """No thread is active, and the next tick has to call `rouse()`; read in every tick."""
        self._watches: list[_Watch] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def rouse(self) -> None:
        self.asleep = False
        self._wake.set()

    @contextlib.contextmanager
    def watching(self, ticking: Ticking, limit_ms: int) -> Iterator[None]:
        """Log and count when callbacks keep its thread for longer than `limit_ms`."""
        watch = _Watch(ticking, limit_ms / 1000)
        with self._lock:
            self._watches.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._main, name="ioxide-watchdog", daemon=True
                )
                self._thread.start()
        self.rouse()  # it may sleep, or wait for longer than this limit
        try:
            yield
        finally:
            with self._lock:  # which the thread never takes
                self._watches.remove(watch)
                self.rouse()
                if not self._watches and self._thread is not None:
                    self._thread.join()
                    self._thread = None

    def _main(self) -> None:
        while watches := list(self._watches):
            if self._check(watches):
                self._wake.wait(min(watch.limit for watch in watches) / _CHECKS)
            else:
                self.asleep = True
                # A tick that began before `asleep` was set is found here.
                if not self._check(watches):
                    self._wake.wait()
                self.asleep = False
            self._wake.clear()

    def _check(self, watches: list[_Watch]) -> bool:
        # All of them, not only up to the first that is active.
        return sum(watch.check() for watch in watches) > 0


WATCHDOG = Watchdog()

# A forked child has neither the watched threads nor the watching one.
os.register_at_fork(after_in_child=WATCHDOG.__init__)  # type: ignore[misc]


class Unwatched:
    """Takes the place of the watchdog while a loop is not watched."""

    asleep = False

    def rouse(self) -> None:
        """Never called."""


class Watchable(Protocol):
    """A selector, which checks at the end of each wait whether it has to rouse its watchdog."""

    watchdog: Watchdog | Unwatched


@contextlib.contextmanager
def watched(selector: Watchable, ticking: Ticking, limit_ms: int) -> Iterator[None]:
    """Have `selector`'s thread watched; a limit of 0 is never."""
    if not limit_ms:
        yield
        return
    selector.watchdog = WATCHDOG
    try:
        with WATCHDOG.watching(ticking, limit_ms):
            yield
    finally:
        selector.watchdog = Unwatched()
