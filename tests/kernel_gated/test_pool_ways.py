# SPDX-License-Identifier: MIT
"""The pool modes over bundles and incremental buffers: what crosses threads is the same buffers.

tests/smoke/test_modes.py asks this, and more, of the shared way.
"""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.faces import Face, ImpatientEcho, Stream, echo
from tests.kernel_gated.ways import STARVING, Streams, Way, by_receive, served
from tests.smoke.modes import POOLS
from tests.support import MIB, Whole, connect, noise, read_exactly, read_to_end

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(104)]

by_pool = pytest.mark.parametrize("mode", POOLS)


@by_pool
@by_receive
def test_bodies_arrive_whole(mode: ContinuationMode, way: Way) -> None:
    """1 MiB in random pieces goes to a worker and back, and every byte is accounted for."""
    rng = random.Random(104)
    first, sent = rng.randbytes(5000), noise(MIB, seed=104)
    streams = Streams()
    with (
        served(Face.HANDLER, way, streams.of(echo), continuation_mode=mode) as server,
        connect(server) as client,
    ):
        stats = streams.echoed(server, client, rng, first, sent)
        assert (0, 0, 0) == (stats.bytes_unread, stats.bytes_unsent, stats.foreign_drops)
        assert stats.foreign_writes > 0, "no worker wrote anything"


@by_pool
@pytest.mark.parametrize("way", STARVING)
@pytest.mark.issue(93)
def test_slices_that_a_worker_holds_come_back(mode: ContinuationMode, way: Way) -> None:
    """All four buffers lent to a worker: the receive stalls until that one gives them back."""
    lent: list[int] = []

    async def hold(conn: Stream) -> None:
        assert isinstance(conn, ioxide.Connection)
        while True:
            async with conn.read() as slices:
                if not slices:
                    return
                lent.append(len(slices))
                # More than a buffer's bytes, held until the receive finds none left. Not two
                # slices: on 6.10 those may be the first byte of "part" and the others.
                more = sum(map(len, slices)) > 64
                while more and not server.stats().recv_enobufs:
                    await asyncio.sleep(0.001)
                for part in slices:
                    conn.write(part)
            await conn.flush()

    sent = random.Random(93).randbytes(20_000)
    streams = Streams()
    with (
        served(Face.HANDLER, way, streams.of(hold), continuation_mode=mode) as server,
        connect(server) as client,
    ):
        streams.deliver(server, client, b"part")  # of a buffer, so that the next goes on in it
        assert b"part" == read_exactly(client, 4)
        streams.deliver(server, client, sent)
        assert Whole(sent) == Whole(read_exactly(client, len(sent)))
        client.shutdown(socket.SHUT_WR)
        assert b"" == read_to_end(client)
        stats = server.stats()
        assert stats.recv_enobufs >= 1
        # Every one was given back by the worker that had it.
        assert sum(lent) == stats.foreign_returns
        assert 0 == stats.slices_lent_now


@by_pool
@by_receive
def test_a_cancelled_read_loses_nothing(mode: ContinuationMode, way: Way) -> None:
    """Reads that time out on a worker leave every byte to the next one."""
    impatient = ImpatientEcho()
    sent = random.Random(7).randbytes(10 * 300)
    streams = Streams()
    with (
        served(Face.HANDLER, way, streams.of(impatient), continuation_mode=mode) as server,
        connect(server) as client,
    ):
        for _ in range(2):  # a bundle, and bytes appended
            streams.deliver(server, client, sent)
            assert sent == read_exactly(client, len(sent))
        for at in range(0, len(sent), 300):
            client.sendall(sent[at : at + 300])
            impatient.wait()
        client.shutdown(socket.SHUT_WR)
        assert sent == read_to_end(client)
    assert impatient.timeouts >= 10
