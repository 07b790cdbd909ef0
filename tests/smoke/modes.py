# SPDX-License-Identifier: MIT
"""The four continuation modes as test parameters, and the traffic that their tests share."""

from __future__ import annotations

import contextlib

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.support import connect, read_exactly, until

MODES = [pytest.param(mode, id=mode.value) for mode in ContinuationMode]
_SISTERS = (ContinuationMode.POSTED, ContinuationMode.POOL_COALESCED)
BRIEF_MODES = [
    pytest.param(mode, id=mode.value, marks=[pytest.mark.slow] if mode in _SISTERS else [])
    for mode in ContinuationMode
]
"""A short run takes the default and one pool mode, for tests that take a second or more in each and
whose subject hardly meets what the other two differ in from these."""
POOLS = [pytest.param(mode, id=mode.value) for mode in ContinuationMode if mode.pooled]


def exchange(server: ioxide.Server, connections: int, rounds: int) -> None:
    """Several clients at once send `rounds` numbered requests each and check each answer."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(connections)]
        for round_number in range(rounds):
            for number, client in enumerate(clients):
                client.sendall(b"%04d%06d" % (number, round_number))
            for number, client in enumerate(clients):
                assert b"%04d%06d" % (number, round_number) == read_exactly(client, 10)


def balanced(server: ioxide.Server) -> ioxide.Counters:
    """The counters when every connection has ended; what has to agree with what agrees."""
    until(lambda: server.stats().connections_now == 0, "the end of every connection")
    stats = server.stats()
    assert stats.accepts == stats.closes
    assert stats.bytes_received == stats.bytes_sent
    assert 0 == stats.buffers_held_now
    assert 0 == stats.handler_faults
    assert 0 == stats.foreign_drops
    assert 0 == stats.stale_cqes
    return stats
