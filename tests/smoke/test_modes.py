# SPDX-License-Identifier: MIT
"""The four continuation modes: the same handlers, the same promises.

In the pool modes a handler lives on a worker's loop, so "comes home" means: to that worker.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.faces import ImpatientEcho
from tests.smoke.modes import MODES, balanced, exchange
from tests.support import (
    MIB,
    TIMEOUT,
    CutError,
    LateReader,
    Whole,
    answer_at_the_end,
    connect,
    echo,
    noise,
    read_exactly,
    read_to_end,
    sending,
    serve,
    until,
)

pytestmark = pytest.mark.issue(104)


@pytest.mark.parametrize("mode", MODES)
def test_bodies_arrive_whole(mode: ContinuationMode) -> None:
    """Two MiB each way on four connections at once: every byte, in order."""
    bodies = [noise(2 * MIB, seed=number) for number in range(4)]
    received: dict[int, Whole] = {}

    def run(server: ioxide.Server, number: int) -> None:
        with connect(server) as client, sending(client, [bodies[number]]):
            received[number] = Whole(read_to_end(client))

    with serve(echo, continuation_mode=mode, pool_threads=2) as server:
        threads = [threading.Thread(target=run, args=(server, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 8 * MIB == balanced(server).bytes_sent
    assert {n: Whole(bodies[n]) for n in range(4)} == received


by_context = pytest.mark.parametrize("context", [True, False], ids=["context", "no-context"])


def answered(mode: ContinuationMode, *, context: bool, rounds: int) -> ioxide.Counters:
    """64 connections with `rounds` requests each got the right answers; what was counted."""
    # Linux 6.1 takes a buffer before it looks for bytes: one for each connection is not enough.
    with serve(echo, continuation_mode=mode, context=context, recv_slots=256) as server:
        exchange(server, connections=64, rounds=rounds)
        stats = balanced(server)
    assert 64 == stats.accepts
    assert 64 * rounds * 10 == stats.bytes_received
    assert 0 == stats.recv_enobufs
    return stats


@by_context
@pytest.mark.parametrize("mode", MODES)
def test_many_requests_on_many_connections(mode: ContinuationMode, context: bool) -> None:
    """64 connections with 8 requests each get the right answers, and the counters agree."""
    answered(mode, context=context, rounds=8)


@pytest.mark.slow
@by_context
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_requests_each(mode: ContinuationMode, context: bool) -> None:
    """64 connections with 10,000 requests each get the right answers, and the counters agree."""
    stats = answered(mode, context=context, rounds=10_000)
    assert (640_000 if mode.pooled else 0) == stats.foreign_writes


@pytest.mark.parametrize("mode", MODES)
def test_awaits_come_home(mode: ContinuationMode) -> None:
    """After sleeping, pool work and gathered tasks a handler is on the thread it began on."""
    seen: list[tuple[str, str]] = []

    async def handler(conn: ioxide.Connection) -> None:
        home = threading.current_thread().name
        await asyncio.sleep(0.001)
        seen.append((home, threading.current_thread().name))
        elsewhere = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert elsewhere != home
        seen.append((home, threading.current_thread().name))
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
        seen.append((home, threading.current_thread().name))
        conn.write(await conn.recv())

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_to_end(client)
        name = server.reactors[0].name
        assert 0 == server.stats().handler_faults
    assert 3 == len(seen)
    for home, now in seen:
        assert home == now
        assert mode.pooled == home.startswith(f"{name}-worker-")


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_read_loses_nothing(mode: ContinuationMode) -> None:
    """Reads that time out again and again leave every byte to the next one."""
    impatient = ImpatientEcho()
    sent = random.Random(7).randbytes(100 * 50)
    with serve(impatient, continuation_mode=mode, pool_threads=1) as server:
        with connect(server) as client:
            for at in range(0, len(sent), 50):
                client.sendall(sent[at : at + 50])
                if at % 500 == 0:
                    impatient.wait()
            client.shutdown(socket.SHUT_WR)
            assert sent == read_to_end(client)
        assert len(sent) == balanced(server).bytes_sent
    assert impatient.timeouts >= 10


@pytest.mark.parametrize("mode", MODES)
def test_half_close_ends_reads_only(mode: ContinuationMode) -> None:
    """A peer that has ended its side still gets the answer."""
    with serve(answer_at_the_end, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert b"got request, really" == read_to_end(client)


@pytest.mark.parametrize("mode", MODES)
def test_a_handler_closes_and_writes_to_other_connections(mode: ContinuationMode) -> None:
    """Handlers of one reactor may use each other's connections, on whatever worker they live."""
    others: list[ioxide.Connection] = []
    ended: list[bytes] = []

    async def handler(conn: ioxide.Connection) -> None:
        request = await conn.recv()
        if request == b"wait":
            others.append(conn)
            conn.write(b"ok")
            ended.append(await conn.recv())
            return
        for other in others:
            other.write(b"bye")
            other.close()
            assert other.closed
            with pytest.raises(BrokenPipeError):
                other.write(b"more")
        conn.write(b"done")

    with serve(handler, continuation_mode=mode, pool_threads=2) as server:
        with connect(server) as one, connect(server) as two, connect(server) as three:
            for client in (one, two):
                client.sendall(b"wait")
                assert b"ok" == read_exactly(client, 2)
            three.sendall(b"go")
            assert b"done" == read_to_end(three)
            assert b"bye" == read_to_end(one)
            assert b"bye" == read_to_end(two)
        until(lambda: len(ended) == 2, "both readers")
        assert 0 == server.stats().handler_faults
    assert [b"", b""] == ended


@pytest.mark.parametrize("mode", MODES)
def test_slices_go_back(mode: ContinuationMode) -> None:
    """Lent buffers come back, also from a handler that raises: two of them serve 50 requests."""

    async def handler(conn: ioxide.Connection) -> None:
        while True:
            async with conn.read() as slices:
                if not slices:
                    return
                for part in slices:
                    conn.write(part)
                if bytes(slices[0]).startswith(b"raise"):
                    raise LookupError("on purpose")

    with serve(handler, continuation_mode=mode, recv_slots=2) as server:
        with connect(server) as client:
            for number in range(50):
                client.sendall(b"%05d" % number)
                assert b"%05d" % number == read_exactly(client, 5)
            client.sendall(b"raise")
            assert b"raise" == read_to_end(client)
        until(lambda: server.stats().slices_lent_now == 0, "the lent buffers")
        until(lambda: server.stats().buffers_held_now == 0, "the held buffers")
        assert 1 == server.stats().handler_faults


@pytest.mark.parametrize("mode", MODES)
def test_a_full_queue_pauses_and_goes_on(mode: ContinuationMode) -> None:
    """A handler that does not read pauses the receive; when it reads, every byte is there."""
    sent = noise(200_000, seed=97)
    reader = LateReader()
    with (
        serve(
            reader,
            continuation_mode=mode,
            recv_queue_entries=4,
            recv_slots=256,
            recv_buffer_size=512,
        ) as server,
        connect(server) as client,
        sending(client, [sent]),
    ):
        until(lambda: server.stats().recv_pauses >= 1, "a paused receive")
        reader.release.set()
        assert b"whole" == read_to_end(client)
    assert [Whole(sent)] == reader.bodies


@pytest.mark.parametrize("mode", MODES)
def test_the_read_clock_runs(mode: ContinuationMode) -> None:
    """A peer that sends nothing is cut off by the read clock, wherever its handler waits."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        await asyncio.sleep(0.05)  # by now the reactor sleeps, for ever as far as it knows
        try:
            await conn.recv()
        except ConnectionAbortedError as error:
            errors.append(str(error))

    with serve(handler, continuation_mode=mode, read_timeout_ms=200) as server:
        with connect(server) as client, pytest.raises(CutError):
            read_to_end(client)
        until(lambda: len(errors) == 1, "the handler's error")
        assert 1 == server.stats().read_timeouts
    assert "read_timeout_ms" in errors[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_reader_is_waited_for(mode: ContinuationMode) -> None:
    """flush() ends when the peer has taken the bytes, not before."""
    flushed = threading.Event()
    body = b"f" * (8 * MIB)

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(body)
        await conn.flush()
        assert 0 == conn.unsent
        flushed.set()

    with serve(handler, continuation_mode=mode) as server, connect(server, rcvbuf=4096) as client:
        until(lambda: server.stats().sends >= 1, "the send")
        assert not flushed.wait(0.1)
        assert len(body) == len(read_to_end(client))
        assert flushed.wait(TIMEOUT)
        assert 0 == server.stats().handler_faults
