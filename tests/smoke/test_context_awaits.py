# SPDX-License-Identifier: MIT
"""Tracking issue #104, the acceptance list: whatever a handler awaits, it goes on on its reactor.

Each await is one that really suspends: a counter shows that the loop went round meanwhile, or the
thing awaited has run on another thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

import ioxide
from tests.support import TIMEOUT, connect, read_exactly, serve

pytestmark = pytest.mark.issue(104)

BODY = b"from the other server"


async def http(conn: ioxide.Connection) -> None:
    """An HTTP server that answers one request."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (data := await conn.recv()):
            return
        request += data
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    conn.write(head.encode() + BODY)


class Trail:
    """Where a handler has been: the threads, in the order in which it was there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.steps: list[int] = []
        self.elsewhere: list[int] = []

    def here(self) -> None:
        self.steps.append(threading.get_ident())

    def off(self) -> int:
        """For other threads: one who has been called there."""
        self.elsewhere.append(threading.get_ident())
        return 7


async def _sleep(trail: Trail) -> None:
    await asyncio.sleep(0.001)
    trail.here()


async def _sleep_zero(trail: Trail) -> None:
    await asyncio.sleep(0)
    trail.here()


async def _aiohttp(trail: Trail) -> None:
    import aiohttp  # here: a second of an emulated processor, in which others collect this file

    async with aiohttp.ClientSession() as session:
        trail.here()
        async with session.get(trail.url) as response:
            trail.here()
            assert BODY == await response.read()
            trail.here()
    trail.here()


async def _httpx(trail: Trail) -> None:
    import httpx  # here: likewise

    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        response = await client.get(trail.url)
        trail.here()
        assert BODY == response.content
    trail.here()


async def _to_thread(trail: Trail) -> None:
    assert 7 == await asyncio.to_thread(trail.off)
    trail.here()


async def _run_in_executor(trail: Trail) -> None:
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert 7 == await loop.run_in_executor(pool, trail.off)
        trail.here()
    assert 7 == await loop.run_in_executor(None, trail.off)
    trail.here()


async def _wrapped_future(trail: Trail) -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    timer = threading.Timer(0.01, lambda: future.set_result(trail.off()))
    timer.start()
    assert 7 == await asyncio.wrap_future(future)
    trail.here()
    timer.join()


async def _nested(trail: Trail) -> None:
    async def inner(depth: int) -> None:
        if depth:
            await inner(depth - 1)
        await _sleep(trail)
        await _to_thread(trail)

    await inner(3)
    trail.here()


async def _tasks(trail: Trail) -> None:
    outer = asyncio.create_task(_nested(trail))
    await outer
    trail.here()


async def _gather(trail: Trail) -> None:
    await asyncio.gather(*(_to_thread(trail) for _ in range(3)), _sleep(trail))
    trail.here()


async def _task_group(trail: Trail) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_to_thread(trail))
        group.create_task(_sleep(trail))
    trail.here()


async def _timeout(trail: Trail) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    trail.here()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    trail.here()


async def _after_an_exception(trail: Trail) -> None:
    def fail() -> None:
        trail.off()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await asyncio.to_thread(fail)
    trail.here()


async def _event_set_elsewhere(trail: Trail) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def elsewhere() -> None:
        trail.off()
        loop.call_soon_threadsafe(event.set)

    timer = threading.Timer(0.01, elsewhere)
    timer.start()
    await event.wait()
    trail.here()
    timer.join()


async def _subprocess(trail: Trail) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "")
    trail.here()
    assert 0 == await child.wait()
    trail.here()


async def _detached(trail: Trail) -> None:
    async def inside() -> int:
        await asyncio.sleep(0.001)
        return trail.off()

    assert 7 == await ioxide.detached(inside())
    trail.here()


# What is awaited, how often it suspends at least, and how often it is on another thread.
AWAITS: list[tuple[Callable[[Trail], Awaitable[None]], int, int]] = [
    (_sleep, 1, 0),
    (_sleep_zero, 1, 0),
    (_aiohttp, 4, 0),
    (_httpx, 2, 0),
    (_to_thread, 1, 1),
    (_run_in_executor, 2, 2),
    (_wrapped_future, 1, 1),
    (_nested, 9, 4),
    (_tasks, 10, 4),
    (_gather, 5, 3),
    (_task_group, 3, 1),
    (_timeout, 2, 0),
    (_after_an_exception, 1, 1),
    (_event_set_elsewhere, 1, 1),
    (_subprocess, 2, 0),
    (_detached, 1, 1),
]


@pytest.mark.parametrize("context", [True, False], ids=["context", "no-context"])
@pytest.mark.parametrize(
    ("awaits", "steps", "elsewhere"), AWAITS, ids=[entry[0].__name__[1:] for entry in AWAITS]
)
def test_comes_home(
    awaits: Callable[[Trail], Awaitable[None]], steps: int, elsewhere: int, context: bool
) -> None:
    """After whatever it awaited a handler is on its reactor's thread, before and after recv()."""
    rounds = 2
    trails: list[Trail] = []
    resumed: list[bool] = []

    async def handler(conn: ioxide.Connection) -> None:
        for _ in range(rounds):
            data = await conn.recv()
            trail = Trail(url)
            trail.here()
            loop = asyncio.get_running_loop()
            turned: list[bool] = []
            loop.call_soon(turned.append, True)  # the loop has gone round if this has run
            await awaits(trail)
            trail.here()
            resumed.append(turned == [True])
            trails.append(trail)
            conn.write(data)
            await conn.flush()
            trail.here()

    with serve(http) as origin, serve(handler, context=context) as server:
        url = f"http://127.0.0.1:{origin.port}/"
        with connect(server) as client:
            for _ in range(rounds):
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
        reactor = server.reactors[0].thread_ident
        assert 0 == server.stats().handler_faults
        assert 0 == server.stats().task_faults
    assert [True] * rounds == resumed
    for trail in trails:
        assert {reactor} == set(trail.steps)
        assert steps + 3 == len(trail.steps)
        assert elsewhere == len(trail.elsewhere)
        assert reactor not in trail.elsewhere


def test_several_reactors_keep_their_own() -> None:
    """With three reactors each connection stays on the one that accepted it, whatever it awaits."""
    seen: list[set[int]] = []

    async def handler(conn: ioxide.Connection) -> None:
        threads = {threading.get_ident()}
        while data := await conn.recv():
            await asyncio.to_thread(lambda: None)
            threads.add(threading.get_ident())
            await asyncio.sleep(0.001)
            threads.add(threading.get_ident())
            conn.write(data)
        seen.append(threads)

    with serve(handler, reactors=3) as server:
        for _ in range(24):
            with connect(server) as client:
                client.settimeout(TIMEOUT)
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
        idents = {reactor.thread_ident for reactor in server.reactors}
        used = sum(reactor.stats().accepts > 0 for reactor in server.reactors)
    assert 24 == len(seen)
    assert {1} == {len(threads) for threads in seen}
    assert set().union(*seen) <= idents
    assert used == len(set().union(*seen))
