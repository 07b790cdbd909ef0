# SPDX-License-Identifier: MIT
"""Tracking issue #104: whatever a handler awaits, it goes on on its reactor's thread."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

import ioxide
from tests.support import TIMEOUT, connect, read_to_end, serve, until

pytestmark = pytest.mark.issue(104)


def test_handler_stays_on_its_reactor() -> None:
    """A handler is on the reactor's thread at first, after sleep() and after to_thread()."""
    seen: list[int] = []
    elsewhere: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        seen.append(threading.get_ident())
        await asyncio.sleep(0.001)
        seen.append(threading.get_ident())
        elsewhere.append(await asyncio.to_thread(threading.get_ident))
        seen.append(threading.get_ident())
        await conn.recv()
        seen.append(threading.get_ident())

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"" == read_to_end(client)
        reactor = server.reactors[0].thread_ident

    assert [reactor] * 4 == seen
    assert threading.get_ident() != reactor
    assert elsewhere != [reactor]


def test_posted_callback_that_raises_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A posted callback that raises is logged and counted, and the reactor goes on."""

    def explode() -> None:
        raise ValueError("posted on purpose")

    ran: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(await conn.recv())

    with caplog.at_level(logging.ERROR), serve(handler) as server:
        reactor = server.reactors[0]
        reactor.post(explode)
        reactor.post(lambda: ran.append(threading.get_ident()))
        until(lambda: server.stats().callback_faults == 1, "a fault that is counted")
        until(lambda: len(ran) == 1, "the callback posted after it")
        with connect(server) as client:
            client.sendall(b"alive")
            client.settimeout(TIMEOUT)
            assert b"alive" == read_to_end(client)

        assert 1 == server.stats().callback_faults
        assert [reactor.thread_ident] == ran
    assert "posted on purpose" in caplog.text


def test_post_never_runs_inline() -> None:
    """post() on the reactor's own thread queues too."""
    order: list[str] = []
    done = threading.Event()

    with serve(_silent) as server:
        reactor = server.reactors[0]

        def first() -> None:
            reactor.post(order.append, "posted")
            reactor.post(done.set)
            order.append("after post()")

        reactor.post(first)
        assert done.wait(TIMEOUT)
    assert ["after post()", "posted"] == order


def test_callback_that_posts_itself_does_not_starve_the_loop() -> None:
    """A callback that posts itself for ever leaves room for connections."""
    stop = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(await conn.recv())

    with serve(handler) as server:
        reactor = server.reactors[0]

        def again() -> None:
            if not stop.is_set():
                reactor.post(again)

        reactor.post(again)
        with connect(server) as client:
            client.sendall(b"through")
            assert b"through" == read_to_end(client)
        stop.set()


def test_connection_refuses_other_threads() -> None:
    """A connection used from another thread raises a sentence that names the way out."""
    caught: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        for call in (lambda: conn.write(b"x"), conn.close, conn.abort):
            with pytest.raises(RuntimeError, match=r"Reactor\.post\(\)") as info:
                await asyncio.to_thread(call)
            caught.append(str(info.value))
        conn.write(b"fine")

    with serve(handler) as server, connect(server) as client:
        assert b"fine" == read_to_end(client)
    assert 3 == len(caught)


async def _silent(conn: ioxide.Connection) -> None:
    await conn.recv()
