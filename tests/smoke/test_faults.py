# SPDX-License-Identifier: MIT
"""Tracking issue #104: what raises unseen is logged and counted, and the loop lives."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

import ioxide
from tests.support import TIMEOUT, connect, on_reactor, read_exactly, serve, until

pytestmark = pytest.mark.issue(104)


class PurposeError(Exception):
    """Raised by these tests and by nobody else."""


def explode(*_: object) -> None:
    raise PurposeError("on purpose")


async def explode_later() -> None:
    await asyncio.sleep(0)
    explode()


def _posted(reactor: ioxide.Reactor) -> None:
    reactor.post(explode)


def _call_soon(reactor: ioxide.Reactor) -> None:
    reactor.loop.call_soon(explode)


def _timer(reactor: ioxide.Reactor) -> None:
    reactor.loop.call_later(0.001, explode)


def _done_callback_of_a_task(reactor: ioxide.Reactor) -> None:
    task = reactor.loop.create_task(asyncio.sleep(0))
    task.add_done_callback(explode)


def _done_callback_of_ours(reactor: ioxide.Reactor) -> None:
    future: ioxide.Future[None] = ioxide.Future(reactor.driver)
    future.add_done_callback(explode)
    future.set_result(None)


def _forgotten_task(reactor: ioxide.Reactor) -> None:
    reactor.loop.create_task(explode_later())


def _forgotten_run(reactor: ioxide.Reactor) -> None:
    assert reactor.context is not None
    reactor.context.run(explode_later())


def _forgotten_future(reactor: ioxide.Reactor) -> None:
    reactor.loop.create_future().set_exception(PurposeError("on purpose"))


FAULTS: list[tuple[Callable[[ioxide.Reactor], None], str]] = [
    (_posted, "callback_faults"),
    (_call_soon, "callback_faults"),
    (_timer, "callback_faults"),
    (_done_callback_of_a_task, "callback_faults"),
    (_done_callback_of_ours, "callback_faults"),
    (_forgotten_task, "task_faults"),
    (_forgotten_run, "task_faults"),
    (_forgotten_future, "task_faults"),
]
IDS = [fault.__name__[1:] for fault, _ in FAULTS]


def count_one_fault(server: ioxide.Server, client: socket.socket, counter: str) -> None:
    """Ask for a fault: it is counted once, where it belongs, and requests are served as before."""
    client.sendall(b"f")
    assert b"f" == read_exactly(client, 1)

    def counted() -> bool:
        gc.collect()
        return bool(getattr(server.stats(), counter))

    until(counted, counter)
    client.sendall(b"x")
    assert b"x" == read_exactly(client, 1)
    stats = server.stats()
    faults = {name: getattr(stats, name) for name in ("callback_faults", "task_faults")}
    assert {"callback_faults": 0, "task_faults": 0} | {counter: 1} == faults
    assert 0 == stats.handler_faults


@pytest.mark.parametrize("own_handler", [False, True], ids=["default", "own-handler"])
@pytest.mark.parametrize(("fault", "counter"), FAULTS, ids=IDS)
def test_it_is_counted_and_the_reactor_lives(
    fault: Callable[[ioxide.Reactor], None],
    counter: str,
    own_handler: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One fault is one count, also under a handler of the user's own, and requests are served."""
    heard: list[BaseException | None] = []

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        heard.append(context.get("exception"))

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            reactor = server.reactors[0]
            if own_handler:
                reactor.loop.set_exception_handler(hear)
            if data == b"f":
                fault(reactor)
            conn.write(data)

    with caplog.at_level(logging.ERROR), serve(handler) as server, connect(server) as client:
        count_one_fault(server, client, counter)
    if own_handler:
        assert [PurposeError] == [type(error) for error in heard]
    else:
        assert "on purpose" in caplog.text


@pytest.mark.parametrize("counter", ["callback_faults", "task_faults"])
@pytest.mark.parametrize("mode", [mode for mode in ioxide.ContinuationMode if mode.pooled])
def test_a_workers_faults_are_the_reactors(mode: ioxide.ContinuationMode, counter: str) -> None:
    """What raises unseen on a worker's loop is counted by its reactor, and the worker lives."""

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            loop = asyncio.get_running_loop()
            assert loop is not server.reactors[0].loop
            if data == b"f" and counter == "callback_faults":
                loop.call_soon(explode)
            elif data == b"f":
                loop.create_task(explode_later())  # noqa: RUF006 - forgotten, on purpose
            conn.write(data)

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        count_one_fault(server, client, counter)


@pytest.mark.parametrize("other", [None, PurposeError("on purpose")], ids=["alone", "and-another"])
def test_a_lost_peer_is_no_fault_in_a_group_either(other: Exception | None) -> None:
    """A TaskGroup raises the peer's reset in a group; with another error in it, it is a fault."""
    groups: list[BaseException] = []

    async def handler(conn: ioxide.Connection) -> None:
        async def read() -> None:
            try:
                while await conn.recv():
                    pass
            except ConnectionResetError as error:
                if other is not None:
                    raise ExceptionGroup("both", [error, other]) from None
                raise

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(asyncio.sleep(TIMEOUT))
        except BaseException as error:
            groups.append(error)
            raise

    with serve(handler) as server:
        with connect(server) as client:
            until(lambda: server.stats().accepts == 1, "the connection")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: len(groups) == 1, "the end of the handler")
        on_reactor(server.reactors[0], lambda: None)  # and of the step in which it was
        assert [ExceptionGroup] == [type(error) for error in groups]
        assert (0 if other is None else 1) == server.stats().handler_faults


def test_what_is_taken_is_no_fault() -> None:
    """An exception that somebody takes, or a cancelled task, is not counted."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        results = await asyncio.gather(explode_later(), return_exceptions=True)
        assert [PurposeError] == [type(error) for error in results]
        task = asyncio.create_task(asyncio.sleep(TIMEOUT))
        await asyncio.sleep(0)
        task.cancel()
        context = ioxide.ReactorContext.current()
        assert context is not None
        with pytest.raises(PurposeError):
            await context.run(explode_later())
        conn.write(b"k")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"k" == read_exactly(client, 1)
        context = server.reactors[0].context
        assert context is not None
        with pytest.raises(PurposeError):
            context.run(explode_later()).result(TIMEOUT)
        gc.collect()
        stats = server.stats()
        assert (0, 0, 0) == (stats.callback_faults, stats.task_faults, stats.handler_faults)
