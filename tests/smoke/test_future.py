# SPDX-License-Identifier: MIT
"""Tracking issue #104: a future that a reactor completes cannot be waited for on that reactor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading

import pytest

import ioxide
from tests.support import TIMEOUT, connect, echo, on_reactor, read_to_end, serve, until

pytestmark = pytest.mark.issue(104)


@pytest.mark.parametrize("method", ["result", "exception"])
def test_waiting_for_oneself_raises(method: str) -> None:
    """On its reactor's thread a future that is not done raises instead of deadlocking."""
    told: list[str] = []

    with serve(echo) as server:
        reactor = server.reactors[0]
        future: ioxide.Future[int] = ioxide.Future(reactor.driver)

        def wait() -> None:
            try:
                getattr(future, method)(0.01)
            except (ioxide.DeadlockError, TimeoutError) as error:
                told.append(str(error))

        on_reactor(reactor, wait)
        assert ["ioxide-reactor-0 would wait for itself"] == [text[:38] for text in told]
        assert "`await future`" in told[0]

        # Once it is done there is nothing to wait for.
        on_reactor(reactor, lambda: future.set_result(7))
        on_reactor(reactor, lambda: told.append(repr(getattr(future, method)())))
    assert {"result": "7", "exception": "None"}[method] == told[1]


def test_other_threads_may_wait() -> None:
    """Another thread blocks until the reactor completes the future, or its time is up."""
    with serve(echo) as server:
        reactor = server.reactors[0]
        future: ioxide.Future[int] = ioxide.Future(reactor.driver)
        with pytest.raises(TimeoutError):
            future.result(0.01)
        reactor.post(future.set_result, 7)
        assert 7 == future.result(TIMEOUT)

        failed: ioxide.Future[int] = ioxide.Future(reactor.driver)
        reactor.post(failed.set_exception, ValueError("on purpose"))
        with pytest.raises(ValueError, match="on purpose"):
            failed.result(TIMEOUT)
        assert isinstance(failed.exception(TIMEOUT), ValueError)


def test_any_loop_may_await() -> None:
    """A future can be awaited on its own reactor's loop and on any other one; both come home."""
    seen: list[tuple[int, int]] = []
    drivers: list[ioxide.Driver] = []

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        future: ioxide.Future[int] = ioxide.Future(drivers[0])
        timer = threading.Timer(0.01, future.set_result, [7])
        timer.start()
        seen.append((await future, threading.get_ident()))
        timer.join()

    with serve(handler) as server:
        drivers.append(server.reactors[0].driver)
        with connect(server) as client:
            client.sendall(b"x")
            assert b"" == read_to_end(client)
        assert [(7, server.reactors[0].thread_ident)] == seen

        async def elsewhere() -> int:
            future: ioxide.Future[int] = ioxide.Future(server.reactors[0].driver)
            server.reactors[0].post(future.set_result, 8)
            return await asyncio.wait_for(future, TIMEOUT)

        assert 8 == asyncio.run(elsewhere())


def test_cancelling_the_await_cancels_the_future() -> None:
    """An await that is cancelled cancels the future, which others then see."""
    with serve(echo) as server:
        future: ioxide.Future[int] = ioxide.Future(server.reactors[0].driver)

        async def give_up() -> None:
            async with asyncio.timeout(0.01):
                await future

        with pytest.raises(TimeoutError):
            asyncio.run(give_up())
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(TIMEOUT)


def test_done_callback_that_raises_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A done-callback that raises is logged and counted, the next one and the reactor go on."""
    ran: list[int] = []

    def explode(_: object) -> None:
        raise ValueError("done on purpose")

    with caplog.at_level(logging.ERROR), serve(echo) as server:
        reactor = server.reactors[0]
        future: ioxide.Future[int] = ioxide.Future(reactor.driver)
        future.add_done_callback(explode)
        future.add_done_callback(lambda _: ran.append(threading.get_ident()))
        reactor.post(future.set_result, 1)
        until(lambda: len(ran) == 1, "the done-callback after the one that raised")
        assert [reactor.thread_ident] == ran
        assert 1 == server.stats().callback_faults
        assert 1 == server.stats().posts
    assert "done on purpose" in caplog.text
