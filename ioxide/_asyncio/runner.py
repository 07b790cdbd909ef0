# SPDX-License-Identifier: MIT
"""Runs programs on an `ioxide.Loop`: `run()`, and the loop factory for runners and servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from ioxide._asyncio.loop import Loop
from ioxide._common.config import ServerConfig, given
from ioxide._driver.driver import Driver

T = TypeVar("T")


def new_event_loop(config: ServerConfig | None = None) -> Loop:
    """A new asyncio loop on a ring of its own.

    It may be run and closed on other threads than the calling one, and run in a forked child; see
    `Loop`.

    For ``asyncio.Runner(loop_factory=ioxide.new_event_loop)``, and for whatever takes the name of
    such a factory, as ``uvicorn --loop ioxide:new_event_loop`` does.  Only the
    sizes of the ring and of the buffers in `config` are used; ports and clocks are a `Server`'s.

    Raises `RingError` when the kernel refuses the ring, `UnsupportedError` when it lacks what
    `config` asks for.  ``run_forever()`` on another thread raises `RingError`, too, since a new
    ring is opened there.
    """
    driver = Driver(given(config))
    try:
        return Loop(driver)
    except BaseException:
        driver.close()
        raise


def run(
    main: Coroutine[Any, Any, T],
    *,
    config: ServerConfig | None = None,
    debug: bool | None = None,
) -> T:
    """``asyncio.run()`` on an `ioxide.Loop`; raises as `new_event_loop()` does."""
    runner = asyncio.Runner(debug=debug, loop_factory=lambda: new_event_loop(config))
    try:
        runner.get_loop()
    except BaseException:
        if asyncio.iscoroutine(main):
            main.close()  # otherwise Python also warns that it was never awaited
        raise
    with runner:
        return runner.run(main)


# Deprecated since Python 3.14, and what older libraries know.
if sys.version_info < (3, 14):

    class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        """For ``asyncio.set_event_loop_policy()``: every new loop is an `ioxide.Loop`."""

        def new_event_loop(self) -> Loop:
            return new_event_loop()
