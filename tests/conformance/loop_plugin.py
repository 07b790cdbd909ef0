# SPDX-License-Identifier: MIT
"""A pytest plugin for suites that are not ours: the loop that the environment names."""

from __future__ import annotations

import asyncio
import os


def pytest_configure() -> None:
    """Have ``asyncio.new_event_loop()`` make it."""
    if os.environ["CONFORMANCE_LOOP"] == "ioxide":
        import ioxide

        asyncio.set_event_loop_policy(ioxide.EventLoopPolicy())
