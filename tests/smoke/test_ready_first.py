# SPDX-License-Identifier: MIT
"""Callbacks that are ready run before the next batch, as on asyncio's own loop."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import ioxide
from tests.support import SMALL, TIMEOUT


def debugged() -> asyncio.AbstractEventLoop:
    """In debug mode asyncio's own `_run_once()` runs, with ioxide's selector."""
    loop = ioxide.new_event_loop(SMALL)
    loop.set_debug(True)
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "ioxide": lambda: ioxide.new_event_loop(SMALL),
}


class Noting(asyncio.Protocol):
    """Notes "data" once for each byte, and stops the loop then."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    def data_received(self, data: bytes) -> None:
        self.order += ["data"] * len(data)
        asyncio.get_running_loop().stop()


@pytest.fixture(params=LOOPS, name="loop")
def loop_fixture(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = debugged() if request.param == "debug" else LOOPS[request.param]()
    yield loop
    loop.close()


@contextmanager
def connected(
    loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol
) -> Iterator[socket.socket]:
    """A peer whose other end is `protocol`'s on `loop`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = loop.create_connection(lambda: protocol, *listener.getsockname())
        transport, _ = loop.run_until_complete(connecting)
        peer = listener.accept()[0]
    with peer:
        loop.run_until_complete(asyncio.sleep(0.01))  # it reads by now
        yield peer
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        peer.close()
        loop.run_until_complete(asyncio.sleep(0.01))


def run_bounded(loop: asyncio.AbstractEventLoop) -> None:
    """Until a callback stops it."""

    def late() -> None:
        raise SystemExit("nothing stopped the loop")

    bound = loop.call_later(TIMEOUT, late)
    try:
        loop.run_forever()
    finally:
        bound.cancel()


@pytest.mark.parametrize("loop", [*LOOPS, "debug"], indirect=True)
def test_what_is_ready_runs_before_what_comes_in(loop: asyncio.AbstractEventLoop) -> None:
    order: list[str] = []
    with connected(loop, Noting(order)) as peer:
        for _ in range(20):

            def say() -> None:
                peer.sendall(b"x")
                loop.call_soon(order.append, "ready")

            loop.call_soon(say)
            run_bounded(loop)
    assert ["ready", "data"] * 20 == order, "a batch overtook a callback that was ready"


def test_what_a_thread_has_queued_runs_before_what_came_in(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The loop waits meanwhile, and learns of both at once."""
    send = ctypes.PyDLL(None).send  # with the GIL, unlike socket.send()
    order: list[str] = []

    def say(peer: socket.socket) -> None:
        time.sleep(0.05)
        assert 1 == send(peer.fileno(), b"x", 1, 0)
        loop.call_soon_threadsafe(order.append, "ready")

    interval = sys.getswitchinterval()
    with connected(loop, Noting(order)) as peer:
        sys.setswitchinterval(10)
        try:
            for _ in range(5):
                thread = threading.Thread(target=say, args=(peer,))
                thread.start()
                run_bounded(loop)
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert ["ready", "data"] * 5 == order, "a batch overtook a callback that was ready"


def test_a_socket_of_epoll_waits_for_what_is_ready(loop: asyncio.AbstractEventLoop) -> None:
    order: list[str] = []
    ours, peer = socket.socketpair()
    with ours, peer:

        def readable() -> None:
            ours.recv(1)
            order.append("readable")
            loop.stop()

        loop.add_reader(ours, readable)
        for _ in range(20):

            def say() -> None:
                peer.sendall(b"x")
                loop.call_soon(order.append, "ready")

            loop.call_soon(say)
            run_bounded(loop)
        loop.remove_reader(ours)
    assert ["ready", "readable"] * 20 == order


def test_a_callback_that_comes_again_for_ever_keeps_nothing_out(
    loop: asyncio.AbstractEventLoop,
) -> None:
    order: list[str] = []
    handle = loop.call_soon(lambda: None)

    def again() -> None:
        nonlocal handle
        handle = loop.call_soon(again)

    with connected(loop, Noting(order)) as peer:
        again()
        for _ in range(3):
            peer.sendall(b"x")
            run_bounded(loop)
        handle.cancel()
    assert ["data"] * 3 == order


def test_an_interrupt_before_the_batch_loses_nothing(loop: asyncio.AbstractEventLoop) -> None:
    """The bytes that came in meanwhile are given to the protocol by the next run."""
    order: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    with connected(loop, Noting(order)) as peer:
        peer.sendall(b"x")
        loop.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_bounded(loop)
        assert [] == order, "the batch overtook the callback that interrupts"
        run_bounded(loop)
        assert ["data"] == order
        loop.call_soon(peer.sendall, b"x")
        run_bounded(loop)
    assert ["data"] * 2 == order


def test_a_loop_that_is_stopped_ends_what_was_closed_before(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """close() with bytes to send, then the program returns: connection_lost() comes first."""
    lost: list[Exception | None] = []

    class Ending(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    async def main(address: tuple[str, int]) -> None:
        transport, _ = await loop.create_connection(Ending, *address)
        transport.write(b"the last words")
        transport.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.run_until_complete(main(listener.getsockname()))
        peer = listener.accept()[0]
    with peer:
        assert [None] == lost, "no connection_lost() before the loop was stopped"
        peer.settimeout(TIMEOUT)
        assert b"the last words" == peer.recv(99)


def test_a_post_is_run_beside_a_callback_that_comes_again_for_ever() -> None:
    loop = ioxide.new_event_loop(SMALL)

    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    loop.driver.post(loop.stop)
    run_bounded(loop)
    loop.close()
