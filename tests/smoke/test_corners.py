# SPDX-License-Identifier: MIT
"""Corners that a review of the core found to be wrong, each held by a test since."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading

import pytest

import ioxide
from ioxide._driver.driver import Driver
from tests.support import (
    SMALL,
    TIMEOUT,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)


def test_a_client_that_came_before_the_reactor_is_served() -> None:
    """A connection that waits in the backlog is taken in the very first tick, and answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listener.getsockname(), TIMEOUT) as client:
        client.sendall(b"early")
        reactor = ioxide.Reactor(echo, SMALL, [listener])
        reactor.start()
        try:
            assert b"early" == read_exactly(client, 5)
        finally:
            reactor.stop()
            assert reactor.join(TIMEOUT)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_only_two_exceptions_unwind_the_loop(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """A posted callback that raises CancelledError or GeneratorExit is a fault like any other."""

    def explode() -> None:
        raise error

    with caplog.at_level(logging.ERROR), serve(echo) as server, connect(server) as client:
        server.reactors[0].post(explode)
        client.sendall(b"alive")
        assert b"alive" == read_exactly(client, 5)
        until(lambda: server.stats().callback_faults == 1, "the fault counted")


def test_stop_sends_what_ended_handlers_wrote() -> None:
    """A stop lets a slow reader have all of an answer whose handler has ended."""
    size = 6 << 20
    written = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(b"z" * size)
        written.set()

    server = ioxide.Server(handler, SMALL.replace(stop_timeout_ms=30_000))
    server.start()
    with connect(server, rcvbuf=65536) as client:
        client.sendall(b"x")
        assert written.wait(TIMEOUT)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        stopper.join(0.5)
        assert stopper.is_alive()  # it waits for a peer that has not read yet
        assert size == len(read_to_end(client))
    stopper.join(TIMEOUT)
    assert not stopper.is_alive()


def test_closing_a_running_loop_is_refused() -> None:
    """loop.close() in a handler, and Driver.close() off-thread, raise and change nothing."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        with pytest.raises(RuntimeError, match="running") as caught:
            asyncio.get_running_loop().close()
        errors.append(str(caught.value))
        conn.write(await conn.recv())

    with serve(handler) as server, connect(server) as client:
        with pytest.raises(RuntimeError, match="thread"):
            server.reactors[0].driver.close()
        on_reactor(server.reactors[0], lambda: None)  # posts still run
        client.sendall(b"alive")
        assert b"alive" == read_to_end(client)
    assert 1 == len(errors)


def test_a_listener_that_is_none_does_not_spin() -> None:
    """A socket that never listens fails each accept: the reactor rests in between."""
    driver = Driver(SMALL)
    loop = ioxide.Loop(driver)
    with contextlib.closing(loop), socket.socket() as useless:
        useless.bind(("127.0.0.1", 0))
        driver.listen(useless.fileno())
        loop.run_until_complete(asyncio.sleep(0.5))
        assert 1 <= driver.counters().accept_pauses <= 10
        assert driver.counters().enters < 50


def test_a_parked_flush_is_no_garbage() -> None:
    """A task that nobody refers to and that waits in flush() survives the garbage collector."""
    ended: list[str] = []

    async def flusher(conn: ioxide.Connection) -> None:
        try:
            await conn.flush()
            ended.append("flushed")
        except BaseException as error:
            ended.append(repr(error))
            raise

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"z" * (8 << 20))
        asyncio.create_task(flusher(conn))  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(0.01)
        gc.collect()
        await conn.recv()

    with serve(handler) as server, connect(server, rcvbuf=4096) as client:
        until(lambda: server.stats().sends >= 1, "the send on its way")
        client.sendall(b"go on")
        assert 8 << 20 == len(read_to_end(client))
    assert ["flushed"] == ended


def test_an_interrupt_in_dispatch_keeps_the_posts_awake() -> None:
    """Posts whose wake came in the interrupted batch run in the next one, without another wake."""

    def interrupt(conn: ioxide.Connection) -> None:
        conn.close()
        raise KeyboardInterrupt

    driver = Driver(SMALL)
    loop = ioxide.Loop(driver, on_connection=interrupt)
    ran: list[int] = []
    with contextlib.closing(loop), socket.create_server(("127.0.0.1", 0)) as listener:
        driver.listen(listener.fileno())
        loop.run_until_complete(asyncio.sleep(0.01))
        with socket.create_connection(listener.getsockname(), TIMEOUT):
            poster = threading.Thread(target=driver.post, args=(ran.append, 1))
            poster.start()
            poster.join()
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(TIMEOUT))
            driver.post(loop.stop)
            loop.run_forever()
    assert [1] == ran


def test_a_view_exported_once_more_does_not_spoil_the_block() -> None:
    """Leaving a read() block works while somebody else exports a view; the buffer comes back."""
    kept: list[memoryview] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            kept.append(memoryview(slices[0]))
            kept.append(memoryview(kept[0]))
        conn.write(b"k")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"exported")
        assert b"k" == read_to_end(client)
        assert 0 == server.stats().handler_faults
        assert b"exported" == bytes(kept[1])
        while kept:
            kept.pop().release()
        until(lambda: server.stats().slices_lent_now == 0, "the slice given back")


def test_dispatch_without_a_loop_raises() -> None:
    """A driver that no loop was attached to says so."""
    with contextlib.closing(Driver(SMALL)) as driver:
        with pytest.raises(RuntimeError, match="attach"):
            driver.dispatch()


def test_a_driver_dropped_without_close_warns() -> None:
    """A forgotten close() is a ResourceWarning, and the descriptors are closed all the same."""
    drivers = [Driver(SMALL)]
    with pytest.warns(ResourceWarning, match="without close"):
        drivers.clear()
