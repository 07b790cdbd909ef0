# SPDX-License-Identifier: MIT
"""Completions that cannot be true: stale generations, unknown kinds, absurd lengths and buffers.

What is forged here is never the terminal completion of an operation in flight: nothing could tell
that from the real one.
"""

from __future__ import annotations

from contextlib import closing

import pytest

import ioxide
from ioxide._driver.driver import Driver
from tests.support import SMALL, connect, echo, on_reactor, read_exactly, serve

ACCEPT, RECV, SEND, WAKE, POLL, CANCEL = range(1, 7)
MORE, BUFFER, NOTIF = 1 << 1, 1 << 0, 1 << 3


@pytest.mark.slow  # completions made up at random, and no kernel in it
def test_forged_completions_are_counted() -> None:
    """A driver without connections takes any batch in, and counts each that concerns nobody."""
    # Here: it takes an emulated processor two seconds, in each guest that collects this file.
    from hypothesis import given, settings
    from hypothesis import strategies as st

    kinds = st.sampled_from([0, ACCEPT, RECV, SEND, CANCEL, 7, 200, 255])
    generations = st.sampled_from([0, 1, 2, 0xFFFFFF])
    slots = st.sampled_from([0, 1, 63, 64, 4096, 2**31, 2**32 - 1])
    results = [-(2**31), -125, -105, -104, -22, -14, -1, 0, 1, 4096, 4097, 2**31 - 1]
    flags = st.builds(
        lambda low, bid: low | bid << 16,
        st.sampled_from([0, BUFFER, BUFFER | MORE, MORE, NOTIF, BUFFER | 1 << 4]),
        st.sampled_from([0, 1, 63, 64, 65535]),
    )
    user_data = st.builds(
        lambda kind, gen, slot: kind << 56 | gen << 32 | slot, kinds, generations, slots
    )
    forged = st.tuples(user_data, st.sampled_from(results), flags)
    tried: list[int] = []

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(forged, min_size=1, max_size=30))
    def each_is_counted(batch: list[tuple[int, int, int]]) -> None:
        tried.append(len(batch))
        driver = Driver(SMALL)
        with closing(driver):
            driver._core._feed(batch)
            stats = driver.counters()
            counted = [entry for entry in batch if entry[0] >> 56 != CANCEL]
            assert len(counted) == stats.stale_cqes + stats.unknown_cqes
            assert 0 == stats.connections_now

    each_is_counted()
    assert 60 <= len(tried)


def test_a_live_connection_survives_other_ones_completions() -> None:
    """Completions with a wrong generation or slot do not touch the connection that is there."""
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"before")
        assert b"before" == read_exactly(client, 6)
        reactor = server.reactors[0]
        # The listener has generation 1 and this connection 2: all others are nobody's.
        forged = [
            (kind << 56 | generation << 32 | slot, result, 0)
            for kind in (RECV, SEND)
            for generation, slot in ((1, 0), (3, 0), (2, 1), (2, 2**32 - 1), (0xFFFFFF, 0))
            for result in (-104, 0, 5)
        ]
        before = server.stats().stale_cqes
        on_reactor(reactor, lambda: reactor.driver._core._feed(forged))
        assert len(forged) == server.stats().stale_cqes - before
        client.sendall(b"after")
        assert b"after" == read_exactly(client, 5)
        assert 1 == server.stats().connections_now


def test_a_completion_that_claims_more_than_its_buffer_is_refused() -> None:
    """A receive that claims more bytes than a buffer has, or an unknown buffer, brings nothing."""
    got: list[bytes] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            got.append(data)
            conn.write(b"k")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"first")
        assert b"k" == read_exactly(client, 1)
        reactor = server.reactors[0]
        size, count = SMALL.recv_buffer_size, SMALL.recv_slots
        live = RECV << 56 | 2 << 32 | 0
        forged = [
            (live, size + 1, MORE | BUFFER | 1 << 16),
            (live, 2**31 - 1, MORE | BUFFER | 1 << 16),
            (live, 5, MORE | BUFFER | count << 16),
            (live, 5, MORE | BUFFER | 65535 << 16),
        ]
        on_reactor(reactor, lambda: reactor.driver._core._feed(forged))
        assert len(forged) == server.stats().unknown_cqes
        client.sendall(b"second")
        assert b"k" == read_exactly(client, 1)
    assert [b"first", b"second"] == got
