# SPDX-License-Identifier: MIT
"""Starting and stopping: graceful, complete, and with a sentence when it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading

import pytest

import ioxide
from ioxide._driver import futures
from tests.support import (
    SMALL,
    TIMEOUT,
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


def test_stop_with_open_connections_leaks_no_descriptor() -> None:
    """Stopping with fifty open connections ends each of them and closes every descriptor."""
    count = 50
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        before = open_fds()
        with serve(echo) as server:
            for client in clients:
                client.settimeout(TIMEOUT)
                client.connect(("127.0.0.1", server.port))
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
            assert count == server.stats().connections_now
        for client in clients:
            assert b"" == client.recv(1)
        wait_fds(before)
    stats = server.stats()
    assert 0 == stats.connections_now
    assert count == stats.closes


def test_stop_lets_a_handler_finish() -> None:
    """A handler in the middle of its answer finishes it; the one that is parked ends at once."""
    started = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        if not (data := await conn.recv()):
            return
        started.set()
        await asyncio.sleep(0.2)
        conn.write(b"answer to " + data)

    with serve(handler) as server, connect(server) as client, connect(server) as parked:
        client.sendall(b"question")
        assert started.wait(TIMEOUT)
        server.stop()
        assert b"answer to question" == read_to_end(client)
        assert b"" == parked.recv(1)


def test_stop_cancels_a_handler_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    """After stop_timeout_ms handlers are cancelled; that is logged with their number."""
    ended: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"k")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with caplog.at_level(logging.WARNING):
        with serve(handler, stop_timeout_ms=50) as server, connect(server) as client:
            assert b"k" == read_exactly(client, 1)
        assert 0 == server.stats().handler_faults
    assert ["cancelled"] == ended
    assert "1 handlers did not end within stop_timeout_ms=50" in caplog.text


def test_forty_starts_and_stops() -> None:
    """Forty servers one after the other leave neither descriptors nor threads."""
    before, threads = open_fds(), threading.enumerate()
    for _ in range(40):
        with serve(echo) as server, connect(server) as client:
            client.sendall(b"x")
            assert b"x" == read_exactly(client, 1)
    wait_fds(before)
    assert [] == new_threads(threads)


def test_post_to_a_stopped_reactor_raises() -> None:
    """post() after the end raises and says that the callback will not run."""
    with serve(echo) as server:
        reactor = server.reactors[0]
    with pytest.raises(RuntimeError, match="will not run"):
        reactor.post(print)


def test_stop_from_several_threads() -> None:
    """stop() may be called by several threads at once; each returns after the end."""
    with serve(echo) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        stoppers = [threading.Thread(target=server.stop) for _ in range(4)]
        for thread in stoppers:
            thread.start()
        for thread in stoppers:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        assert not server.reactors[0].is_alive


THREADS = ["reactor", "to_thread", "detached", "worker", "worker's to_thread"]


@pytest.mark.parametrize("where", THREADS)
def test_nobody_waits_for_the_end_that_waits_for_him(where: str) -> None:
    """Server.stop() on a thread that has to end first raises, the stop goes on, and wait() ends."""
    told: list[str] = []

    def stop() -> None:
        with pytest.raises(ioxide.DeadlockError) as raised:
            server.stop()
        told.append(str(raised.value))

    async def stop_inside() -> None:
        stop()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        if "to_thread" in where:
            await asyncio.to_thread(stop)
        elif where == "detached":
            await ioxide.detached(stop_inside())
        else:
            stop()

    mode = ioxide.ContinuationMode.POOL if "worker" in where else ioxide.ContinuationMode.INLINE
    config = SMALL.replace(continuation_mode=mode, reactors=2, stop_timeout_ms=2000)
    server = ioxide.Server(handler, config)
    server.start()
    try:
        with connect(server) as client:
            client.sendall(b"x")
            until(lambda: len(told) == 1, "the refusal")
            assert b"" == read_to_end(client)
        assert "cannot wait for its own end" in told[0]
        assert "Reactor.stop()" in told[0]
        assert server.wait(TIMEOUT)
    finally:
        server.stop()
    assert 0 == server.stats().handler_faults


def test_a_server_has_ended_when_each_reactor_has() -> None:
    """wait() goes on while any reactor serves, and ends with the last, whoever stopped them."""
    with serve(echo, reactors=2) as server:
        first, second = server.reactors
        first.stop()
        assert first.join(TIMEOUT)
        assert not server.wait(0.05)
        second.stop()
        assert server.wait(TIMEOUT)


def test_a_signal_handler_may_come_anywhere() -> None:
    """Stopping and waiting take no lock that the thread they interrupt must not hold."""
    for lock in (ioxide.Reactor(echo, SMALL, ())._lock, futures._waits_lock):
        with lock:
            assert lock.acquire(blocking=False), "a signal handler would wait for itself"
            lock.release()


def test_port_in_use_is_a_sentence() -> None:
    """A port that is taken raises OSError naming address and port, and leaves nothing open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before, threads = open_fds(), threading.enumerate()
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            ioxide.Server(echo, SMALL.replace(port=port)).start()
        assert open_fds() <= before
        assert [] == new_threads(threads)


def test_system_exit_in_a_handler_ends_the_reactor_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SystemExit leaves the loop, as in asyncio: the server's owner is told by what."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        raise SystemExit(3)

    before = open_fds()
    with caplog.at_level(logging.CRITICAL):
        server = ioxide.Server(handler, SMALL)
        server.start()
        with connect(server) as client:
            client.sendall(b"x")
            with pytest.raises(ioxide.ReactorError, match=r"SystemExit\(3\)"):
                server.wait(TIMEOUT)
            with contextlib.suppress(ConnectionResetError):
                assert b"" == read_to_end(client)
        with pytest.raises(ioxide.ReactorError):
            server.stop()
    assert not server.reactors[0].is_alive
    wait_fds(before)


def test_a_first_tick_that_fails_fails_the_start() -> None:
    """Also while the loop runs on, because it waits for tasks that it has cancelled."""

    async def linger() -> None:
        try:
            await asyncio.sleep(TIMEOUT)
        finally:
            await asyncio.sleep(0.3)

    def leave() -> None:
        raise SystemExit(3)

    tasks: list[asyncio.Task[None]] = []

    def on_start(reactor: ioxide.Reactor) -> None:
        tasks.append(reactor.loop.create_task(linger()))
        reactor.loop.call_soon(leave)

    server = ioxide.Server(echo, SMALL, on_start=on_start)
    with pytest.raises(SystemExit):
        server.start()
    assert tasks[0].done()


def test_several_reactors_share_a_port() -> None:
    """Three reactors accept on one port, resolved once; their counters add up."""
    with serve(echo, reactors=3) as server:
        threads = {reactor.thread_ident for reactor in server.reactors}
        for _ in range(30):
            with connect(server) as client:
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
        assert 3 == len(threads)
        assert 30 == server.stats().accepts
        assert 30 == sum(reactor.stats().accepts for reactor in server.reactors)


def test_extra_ports() -> None:
    """Every extra port reaches the same handler."""
    with socket.socket() as holder:
        # Keeps the port from everybody else, and does not listen; two reactors may share it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        extra = holder.getsockname()[1]
        with serve(echo, extra_ports=(extra,), reactors=2) as server:
            assert (server.port, extra) == server.ports
            for port in server.ports:
                with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
                    client.sendall(b"x")
                    assert b"x" == read_exactly(client, 1)
