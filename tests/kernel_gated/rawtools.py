# SPDX-License-Identifier: MIT
"""What the capability tests share: sockets, payloads and constants; no experiment of the probe."""

from __future__ import annotations

from ioxide._errata.connections import REACTOR_FLAGS, pattern, tcp_pair
from ioxide._probe.rawring import Completion

__all__ = ["REACTOR_FLAGS", "pattern", "tcp_pair", "total"]


def total(completions: list[Completion]) -> int:
    """The bytes received by ``completions``; an error counts as the end of all waiting."""
    if any(c.res < 0 for c in completions):
        return 1 << 62
    return sum(c.res for c in completions)
