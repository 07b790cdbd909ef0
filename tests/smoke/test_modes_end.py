# SPDX-License-Identifier: MIT
"""How connections, handlers and servers end in each of the four continuation modes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.smoke.modes import BRIEF_MODES, MODES, POOLS
from tests.support import (
    CutError,
    connect,
    echo,
    new_threads,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_fds,
)

pytestmark = pytest.mark.issue(104)


@pytest.mark.parametrize("mode", MODES)
def test_aborted_and_ended_connections_say_so(mode: ContinuationMode) -> None:
    """abort() resets; afterwards the connection says that it is closed and has no peer."""
    seen: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        seen.append(conn.peername)
        conn.abort()
        with pytest.raises(OSError):
            conn.write(b"x")
        seen.append(conn.closed)

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        address = client.getsockname()
        client.sendall(b"x")
        with pytest.raises(CutError):
            read_to_end(client)
        until(lambda: server.stats().closes == 1, "the end")
        until(lambda: len(seen) == 2, "the handler's end")
        assert 1 == server.stats().aborts
        assert 0 == server.stats().handler_faults
    assert [address, True] == seen


@pytest.mark.parametrize("mode", MODES)
def test_handler_faults_are_counted(mode: ContinuationMode) -> None:
    """A handler that raises is counted, its peer sees the end, and the next one is served."""

    async def handler(conn: ioxide.Connection) -> None:
        data = await conn.recv()
        if data == b"bad":
            raise LookupError("on purpose")
        conn.write(data)

    with serve(handler, continuation_mode=mode) as server:
        for _ in range(5):
            with connect(server) as client:
                client.sendall(b"bad")
                assert b"" == read_to_end(client)
        with connect(server) as client:
            client.sendall(b"good")
            assert b"good" == read_to_end(client)
        until(lambda: server.stats().connections_now == 0, "the ends")
        assert 5 == server.stats().handler_faults


@pytest.mark.parametrize("mode", BRIEF_MODES)
def test_stop_ends_everything(mode: ContinuationMode, caplog: pytest.LogCaptureFixture) -> None:
    """A stop lets handlers finish, cancels who does not, and leaves neither thread nor fd."""
    before, threads = open_fds(), threading.enumerate()
    ended: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        request = await conn.recv()
        if request == b"stay":
            conn.write(b"k")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
        elif request:
            await asyncio.sleep(0.1)
            conn.write(b"answer to " + request)
            await conn.flush()

    with caplog.at_level(logging.WARNING):
        with (
            serve(handler, continuation_mode=mode, stop_timeout_ms=1000) as server,
            connect(server) as silent,
            connect(server) as asking,
            connect(server) as staying,
        ):
            staying.sendall(b"stay")
            assert b"k" == read_exactly(staying, 1)
            asking.sendall(b"question")
            until(lambda: server.stats().bytes_received == 12, "the question")
            server.stop()
            assert b"answer to question" == read_to_end(asking)
            assert b"" == read_to_end(silent)
        stats = server.stats()
    assert ["cancelled"] == ended
    assert "1 handlers did not end within stop_timeout_ms=1000" in caplog.text
    assert (3, 3, 0, 0) == (
        stats.accepts,
        stats.closes,
        stats.connections_now,
        stats.handler_faults,
    )
    wait_fds(before)
    until(lambda: not new_threads(threads), "the end of every thread")


@pytest.mark.parametrize("mode", BRIEF_MODES)
def test_a_cancelled_handler_may_await_what_it_cleans_up(mode: ContinuationMode) -> None:
    """A stop cancels a handler once: what that awaits afterwards is not broken into."""
    ended: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"k")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            try:
                await asyncio.sleep(0.01)
                await asyncio.to_thread(ended.append, "cleaned up")
            except asyncio.CancelledError:
                ended.append("cancelled again")
            raise error from None

    # As long again is what the cleaning up has: far more than it needs, and not less in a guest.
    with (
        serve(handler, continuation_mode=mode, stop_timeout_ms=1500) as server,
        connect(server) as client,
    ):
        assert b"k" == read_exactly(client, 1)
        server.stop()
    assert ["cleaned up"] == ended


@pytest.mark.parametrize("mode", MODES)
def test_stops_that_race_leave_nothing(mode: ContinuationMode) -> None:
    """Ten stops in the middle of traffic: every server ends, and so do its threads."""
    before, threads = open_fds(), threading.enumerate()
    answers = 0
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serve(echo, continuation_mode=mode, pool_threads=2))
            clients = [stack.enter_context(connect(server)) for _ in range(8)]
            for client in clients[:4]:
                client.sendall(b"x")
                answers += len(read_exactly(client, 1))
            for client in clients:
                client.sendall(b"y")
            server.stop()
            stats = server.stats()
            assert stats.accepts == stats.closes
            assert 0 == stats.handler_faults
    assert 40 == answers
    wait_fds(before)
    until(lambda: not new_threads(threads), "the end of every thread")


@pytest.mark.parametrize("mode", POOLS)
def test_a_system_exit_on_a_worker_ends_the_reactor(mode: ContinuationMode) -> None:
    """As in the other modes SystemExit raised by a handler ends its reactor, which says so."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        raise SystemExit(3)

    server = ioxide.Server(handler, ioxide.ServerConfig(port=0, continuation_mode=mode))
    server.start()
    with connect(server) as client:
        client.sendall(b"x")
        with contextlib.suppress(CutError):
            read_to_end(client)
    until(lambda: not server.reactors[0].is_alive, "the end of the reactor")
    with pytest.raises(ioxide.ReactorError, match="SystemExit"):
        server.stop()
