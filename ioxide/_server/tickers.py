# SPDX-License-Identifier: MIT
"""Callbacks that a reactor runs at intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ioxide._asyncio.loop import Loop
    from ioxide._driver.driver import Driver


class Ticker:
    """A callback that its reactor runs every `interval_ms`; made by `Reactor.add_ticker()`.

    Deadlines are absolute, each one interval after the last, so that a late tick does not move
    those that follow.  Ticks that were missed, because the reactor was busy for longer than an
    interval, are skipped.
    """

    __slots__ = ("_callback", "_driver", "_due", "_handle", "_interval", "_loop", "interval_ms")

    def __init__(
        self, loop: Loop, driver: Driver, callback: Callable[[], object], interval_ms: int
    ) -> None:
        self.interval_ms = interval_ms
        self._loop = loop
        self._driver = driver
        self._callback = callback
        self._interval = interval_ms / 1000
        self._due = loop.time() + self._interval
        # One of the loop's own timers: a wait has one deadline, the soonest of all there are.
        self._handle = loop.call_at(self._due, self._tick)

    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` was called."""
        return self._handle.cancelled()

    def cancel(self) -> None:
        """Run it no more; also from inside the callback, and more than once.

        Raises `RuntimeError` on another thread than the reactor's.
        """
        self._driver.check_thread("Ticker.cancel()")
        self._handle.cancel()

    def _tick(self) -> None:
        missed = max(0.0, (self._loop.time() - self._due) // self._interval)
        self._due += (missed + 1) * self._interval
        # Before the callback: it may cancel this ticker, and an interrupt must not end it.
        self._handle = self._loop.call_at(self._due, self._tick)
        self._driver.timer_ticks += 1
        try:
            self._callback()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # CancelledError too, as in asyncio.Handle
            self._driver.ticker_faults += 1
            self._driver.report(f"ticker {self._callback!r} raised", error)

    def __repr__(self) -> str:
        state = " cancelled" if self.cancelled else ""
        return f"<ioxide.Ticker {self._callback!r} every {self.interval_ms} ms{state}>"
