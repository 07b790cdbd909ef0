# SPDX-License-Identifier: MIT
"""The calls of one thread on a connection happen in the order in which it made them.

The reactor's own thread has two ways to write: at once, and through the queue that other threads
use. It may also have waited for another thread, whose calls then came before its own next one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ioxide
from tests.smoke.modes import MODES
from tests.support import TIMEOUT, connect, read_to_end, serve

Conn = ioxide.Connection
Handler = Callable[[Conn], Awaitable[None]]


async def _write_then_write(conn: Conn) -> None:
    conn.write_threadsafe(b"first ")
    conn.write(b"second ")
    conn.write_threadsafe(b"third")
    await conn.flush()
    assert 0 == conn.unsent


async def _write_then_close(conn: Conn) -> None:
    conn.write_threadsafe(b"first ")
    conn.write_threadsafe(b"second ")
    conn.write_threadsafe(b"third")
    conn.close()


async def _write_then_close_threadsafe(conn: Conn) -> None:
    conn.write(b"first ")
    conn.write_threadsafe(b"second ")
    conn.write(b"third")
    conn.close_threadsafe()
    with pytest.raises(BrokenPipeError):
        conn.write(b"fourth")
    assert b"" == await conn.recv()


async def _close_threadsafe_then_read(conn: Conn) -> None:
    conn.write_threadsafe(b"first second third")
    conn.close_threadsafe()
    assert b"" == await conn.recv()


async def _write_then_flush(conn: Conn) -> None:
    conn.write_threadsafe(b"first ")
    await conn.flush()
    assert 0 == conn.unsent
    conn.write_threadsafe(b"second third")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "handler",
    [
        _write_then_write,
        _write_then_close,
        _write_then_close_threadsafe,
        _close_threadsafe_then_read,
        _write_then_flush,
    ],
    ids=lambda handler: handler.__name__.strip("_"),
)
def test_two_ways_of_one_thread_keep_its_order(
    handler: Handler, mode: ioxide.ContinuationMode
) -> None:
    """What was queued comes before the call that follows it, be that a write or a close."""
    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        assert b"first second third" == read_to_end(client)
        stats = server.stats()
    assert (0, 0, 0) == (stats.foreign_drops, stats.bytes_unsent, stats.handler_faults)


@pytest.mark.parametrize("mode", MODES)
def test_an_abort_comes_after_what_was_written(mode: ioxide.ContinuationMode) -> None:
    """abort() drops what the thread had queued, and the flush of that says so."""
    flushes: queue.SimpleQueue[ioxide.Future[None]] = queue.SimpleQueue()

    async def handler(conn: Conn) -> None:
        await conn.recv()
        conn.write_threadsafe(b"never sent")
        flushes.put(conn.flush_threadsafe())
        conn.abort()

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionAbortedError, match="abort"):
            flushes.get(timeout=TIMEOUT).result(TIMEOUT)
        stats = server.stats()
    assert (0, 10) == (stats.bytes_sent, stats.bytes_unsent)


async def _by_return(_: Conn) -> None:
    pass


async def _by_close(conn: Conn) -> None:
    conn.close()


async def _by_exception(_: Conn) -> None:
    raise ConnectionError("the end of this handler")


async def _by_cancel(_: Conn) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "end", [_by_return, _by_close, _by_exception, _by_cancel], ids=lambda end: end.__name__[1:]
)
@pytest.mark.parametrize("how", ["joined", "to_thread"])
def test_the_end_of_a_handler_comes_after_what_its_thread_wrote(
    how: str, end: Handler, mode: ioxide.ContinuationMode
) -> None:
    """A handler that waited for a thread which wrote, and ends: the bytes are sent."""

    async def handler(conn: Conn) -> None:
        if how == "joined":
            thread = threading.Thread(target=conn.write_threadsafe, args=(b"from a thread",))
            thread.start()
            thread.join()
        else:
            await asyncio.to_thread(conn.write_threadsafe, b"from a thread")
        await end(conn)

    with serve(handler, continuation_mode=mode) as server:
        for _ in range(3):
            with connect(server) as client:
                assert b"from a thread" == read_to_end(client)
        assert 0 == server.stats().foreign_drops


def test_queued_bytes_count_for_a_write_of_the_reactors_own() -> None:
    """write_limit is about all that waits, whichever way it came, and nothing counts twice."""
    refused: list[str] = []

    async def handler(conn: Conn) -> None:
        conn.write_threadsafe(b"q" * 60_000)
        with pytest.raises(BufferError) as told:
            conn.write(b"x" * 10_000)
        refused.append(str(told.value))
        assert 60_000 == conn.unsent
        conn.write(b"y" * 5_536)
        assert 65_536 == conn.unsent

    with serve(handler, write_limit=65536) as server, connect(server) as client:
        assert b"q" * 60_000 + b"y" * 5_536 == read_to_end(client)
    (message,) = refused
    assert "60000 wait to be sent and write_limit is 65536" in message


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["own", "queued", "joined", "together", "flush", "tick"]), st.integers(1, 4)
    ),
    max_size=8,
)
ENDS = st.sampled_from(["return", "close", "close_threadsafe"])


class Player:
    """A handler that does what it is told, and says which pieces must have come out of it."""

    def __init__(self) -> None:
        self.programs: queue.SimpleQueue[tuple[list[Step], str]] = queue.SimpleQueue()
        self.phases: queue.SimpleQueue[list[list[list[bytes]]]] = queue.SimpleQueue()

    async def __call__(self, conn: Conn) -> None:
        steps, end = self.programs.get_nowait()
        phases: list[list[list[bytes]]] = []
        for number, (what, count) in enumerate(steps):
            phases.append(await self._step(conn, what, f"{number:02}", count))
        self.phases.put(phases)
        if end != "return":
            getattr(conn, end)()

    async def _step(self, conn: Conn, what: str, name: str, count: int) -> list[list[bytes]]:
        """The pieces of each thread, which are in order among themselves."""

        def pieces(thread: str) -> list[bytes]:
            return [f"{thread}{name}{index};".encode() for index in range(count)]

        def write(own: list[bytes], call: Callable[[bytes], None]) -> None:
            for piece in own:
                call(piece)

        if what == "flush":
            await conn.flush()
            assert 0 == conn.unsent
            return []
        if what == "tick":
            await asyncio.sleep(0)
            return []
        mine, others = pieces("m"), [pieces("a"), pieces("b")]
        if what in ("own", "queued"):
            write(mine, conn.write if what == "own" else conn.write_threadsafe)
            return [mine]
        threads = [
            threading.Thread(target=write, args=(other, conn.write_threadsafe)) for other in others
        ]
        for thread in threads:
            thread.start()
        if what == "together":
            write(mine, conn.write)
        for thread in threads:
            thread.join()
        return [mine, *others] if what == "together" else others


@pytest.fixture(scope="module", params=MODES)
def played(request: pytest.FixtureRequest) -> Iterator[tuple[Player, ioxide.Server]]:
    player = Player()
    with serve(player, continuation_mode=request.param) as server:
        yield player, server


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, end=ENDS)
def test_any_calls_keep_their_order(
    played: tuple[Player, ioxide.Server], steps: list[Step], end: str
) -> None:
    """No piece is lost or comes twice; steps keep their order, each thread in a step its own."""
    player, server = played
    player.programs.put((steps, end))
    with connect(server) as client:
        received = [piece + b";" for piece in read_to_end(client).split(b";")[:-1]]
    for threads in player.phases.get(timeout=TIMEOUT):
        count = sum(map(len, threads))
        phase, received = received[:count], received[count:]
        assert sorted(phase) == sorted(piece for pieces in threads for piece in pieces)
        for pieces in threads:
            assert pieces == [piece for piece in phase if piece in pieces]
    assert [] == received
    assert 0 == server.stats().foreign_drops


def test_a_read_after_a_queued_close_does_not_wait() -> None:
    """A read after close_threadsafe() of the same thread is at the end, without another tick."""
    steps: queue.SimpleQueue[object] = queue.SimpleQueue()

    async def handler(conn: Conn) -> None:
        conn.close_threadsafe()
        read = conn.recv()
        try:
            read.send(None)  # as a task does
            steps.put("waits")
        except StopIteration as done:
            steps.put(done.value)
        read.close()

    with serve(handler) as server, connect(server) as client:
        assert b"" == client.recv(1)
        assert b"" == steps.get(timeout=TIMEOUT), "the read waited"
