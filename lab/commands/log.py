# SPDX-License-Identifier: MIT
"""What the store and the sources have to say while they work, on the run's own standard error."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told() -> Iterator[None]:
    """Show what is logged below `lab` while in the block, as `lab: ...` on standard error."""
    # A descriptor of its own: pytest redirects number 2 while it runs a test, and it is just then
    # that a guest is booted and its kernel fetched.
    with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("lab: %(message)s"))
        logger = logging.getLogger("lab")
        before = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
