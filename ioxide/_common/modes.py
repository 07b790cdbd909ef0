# SPDX-License-Identifier: MIT
"""Where a handler goes on when what it awaits of its connection is done."""

from __future__ import annotations

from enum import StrEnum


class ContinuationMode(StrEnum):
    """How a completion resumes the task that waits for it.

    Handlers are the same in every mode.  `INLINE` is the one to use; the others are there to
    measure what it saves, and `POOL_COALESCED` for handlers that keep the processor to themselves
    in code that releases the GIL.
    """

    INLINE = "inline"
    """Inside the tick, on the reactor: the whole batch's answers leave with one submission."""
    POSTED = "posted"
    """From the reactor's queue of posts, at the top of its loop: same thread, one hop later."""
    POOL = "pool"
    """On one of `ServerConfig.pool_threads` worker threads, each with an asyncio loop of its own.
    Every write, flush, close and returned buffer wakes the reactor with an eventfd write."""
    POOL_COALESCED = "pool_coalesced"
    """The same, but one eventfd write wakes the reactor for all that is queued."""

    @property
    def pooled(self) -> bool:
        """Whether handlers live on worker threads."""
        return self in (ContinuationMode.POOL, ContinuationMode.POOL_COALESCED)
