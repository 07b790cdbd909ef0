# SPDX-License-Identifier: MIT
"""flush() against close(), abort() and the peer's reset: every flush ends, and nothing stays.

A flush that is armed before its signal is reset, with the close in between, would never end, and
what is staged on a closed connection would stay in a slab that grows for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes, brief
from tests.support import TIMEOUT, connect, serve, until

pytestmark = pytest.mark.kernel_gated

ROUNDS = 60
FLUSHERS = 3
BODY = b"f" * 9000  # grows a slab of 4096 bytes
PARKED = b"p" * (8 << 20)  # more than two sockets hold
SLAB, POOL = 4096, 2

ENDS = pytest.mark.parametrize("end", ["close", "abort", "reset"])


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _drain(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while client.recv(1 << 16):
            pass


def _check(server: ioxide.Server, rounds: int, outcomes: Counter[str]) -> None:
    """Every call has its outcome, every connection its end, and no slab more than the pool's."""
    assert outcomes["sent"] + outcomes["failed"] == outcomes["begun"]
    assert outcomes["sent"] >= rounds, "no flush came before an end"
    until(lambda: server.stats().connections_now == 0, "no connection left")
    stats = server.stats()
    assert (rounds, rounds) == (stats.accepts, stats.closes)
    assert (0, 0) == (stats.handler_faults, stats.callback_faults)
    assert stats.slab_bytes_now <= POOL * SLAB, f"{stats.slab_bytes_now} slab bytes at rest"


@ENDS
@pytest.mark.parametrize("changes", brief(MODES))
def test_flushes_race_the_end_in_another_task(changes: Changes, end: str) -> None:
    """Three tasks write and flush while another one ends the connection, or the peer does."""
    outcomes: Counter[str] = Counter()
    handled: list[int] = []

    async def flusher(conn: ioxide.Connection, first: asyncio.Event) -> None:
        while True:
            outcomes["begun"] += 1
            try:
                conn.write(BODY)
                await conn.flush()
            except OSError:
                outcomes["failed"] += 1
                return
            outcomes["sent"] += 1
            first.set()

    async def handler(conn: ioxide.Connection) -> None:
        number, first = len(handled), asyncio.Event()
        await conn.recv(1)  # a reset would reach a client that is still in connect(2)
        flushers = [asyncio.create_task(flusher(conn, first)) for _ in range(FLUSHERS)]
        await first.wait()
        for _ in range(number % 4):  # before, in or after the tick of a flush's end
            await asyncio.sleep(0)
        if end == "close":
            conn.close()
        elif end == "abort":
            conn.abort()
        _, pending = await asyncio.wait(flushers, timeout=TIMEOUT)
        handled.append(len(pending))

    with serve(handler, write_slab_size=SLAB, pool_max=POOL, **changes) as server:
        for number in range(ROUNDS):
            with connect(server, rcvbuf=4096) as client:
                client.sendall(b"x")
                if end == "reset":
                    client.recv(1 + number % 5 * 4000)
                    _reset(client)
                else:
                    _drain(client)
                until(lambda: len(handled) == number + 1, "the handler", timeout=TIMEOUT + 5)  # noqa: B023
            assert 0 == handled[number], "a flush never ended"
        assert ROUNDS * FLUSHERS == outcomes["failed"]
        _check(server, ROUNDS, outcomes)


@ENDS
@pytest.mark.parametrize("changes", brief(MODES))
def test_flushes_race_the_end_from_other_threads(changes: Changes, end: str) -> None:
    """Two threads write and flush by the threadsafe calls while a third one ends the connection."""
    outcomes: Counter[str] = Counter()
    conns: list[ioxide.Connection] = []
    calls = {"writes": 0, "flushes": 0}
    lock = threading.Lock()

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        with contextlib.suppress(ConnectionError):
            await conn.recv()

    def flush(conn: ioxide.Connection, sent: threading.Semaphore) -> list[ioxide.Future[None]]:
        """Writes and flushes until the connection has ended, and a flush after its end as well."""
        futures = []
        with contextlib.suppress(OSError):
            while True:
                conn.write_threadsafe(BODY)
                with lock:
                    calls["writes"] += 1
                futures.append(conn.flush_threadsafe())
                if len(futures) % 3 == 0:
                    with contextlib.suppress(OSError, TimeoutError):
                        futures[-1].result(TIMEOUT)
                sent.release()
        futures.append(conn.flush_threadsafe())
        with lock:
            calls["flushes"] += len(futures)
        return futures

    with serve(handler, write_slab_size=SLAB, pool_max=POOL, **changes) as server:
        for number in range(ROUNDS):
            with connect(server, rcvbuf=4096) as client:
                until(lambda: len(conns) == number + 1, "the connection")  # noqa: B023
                conn, sent = conns[number], threading.Semaphore(0)
                futures: list[ioxide.Future[None]] = []
                threads = [
                    threading.Thread(target=lambda: futures.extend(flush(conn, sent)))  # noqa: B023
                    for _ in range(2)
                ]
                # Each third round has a parked flush for certain, which a reset or abort() ends.
                parked = end != "close" and number % 3 == 0
                if end != "reset" and not parked:
                    threads.append(threading.Thread(target=_drain, args=(client,)))
                for thread in threads:
                    thread.start()
                for _ in range(1 + number % 5):
                    assert sent.acquire(timeout=TIMEOUT)
                if parked:
                    conn.write_threadsafe(PARKED)
                    futures.append(conn.flush_threadsafe())
                    with lock:
                        calls["writes"] += 1
                        calls["flushes"] += 1
                if end == "close":
                    conn.close_threadsafe()
                elif end == "abort":
                    loop = server.reactors[0].loop
                    if parked:  # a tick later, when the flush has been taken from the queue
                        loop.call_soon_threadsafe(loop.call_later, 0.001, conn.abort)
                    else:
                        loop.call_soon_threadsafe(conn.abort)
                else:
                    client.recv(1 + number % 5 * 4000)
                    _reset(client)
                for thread in threads:
                    thread.join(TIMEOUT + 5)
                    assert not thread.is_alive(), "a thread never ended"
            for future in futures:
                outcomes["begun"] += 1
                try:
                    failed = future.exception(TIMEOUT) is not None
                except TimeoutError:
                    raise AssertionError("a flush never ended") from None
                outcomes["failed" if failed else "sent"] += 1
        until(lambda: server.stats().foreign_flushes == calls["flushes"], "all flushes counted")
        assert calls["writes"] == server.stats().foreign_writes
        assert (end == "close") or outcomes["failed"] >= ROUNDS // 3
        _check(server, ROUNDS, outcomes)


@pytest.mark.parametrize("changes", MODES)
def test_a_flush_from_another_thread_of_nothing_ends_at_once(changes: Changes) -> None:
    """With nothing left to send there is nothing that would wake a parked flush."""
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await conn.recv()

    with serve(handler, **changes) as server, connect(server) as client:
        until(lambda: len(conns) == 1, "the connection")
        try:
            assert conns[0].flush_threadsafe().result(TIMEOUT) is None
        except TimeoutError:
            raise AssertionError("a flush never ended") from None
        client.sendall(b"x")
