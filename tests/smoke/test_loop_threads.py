# SPDX-License-Identifier: MIT
"""A loop is made, run and closed on whatever threads asyncio allows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import ioxide
from ioxide._driver import driver as driver_module
from tests.smoke.loops import EchoProtocol, echo, left_open, say, talk
from tests.support import SMALL, TIMEOUT, open_fds, wait_fds

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


def new() -> ioxide.Loop:
    return ioxide.new_event_loop(SMALL)


def on_a_thread(work: Callable[[], T]) -> T:
    """The value of ``work()`` on a thread that has ended since; raises what it raised."""
    box: list[T] = []
    raised: list[BaseException] = []

    def body() -> None:
        try:
            box.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the thread never ended"
    if raised:
        raise raised[0]
    return box[0]


@contextlib.contextmanager
def running(loop: ioxide.Loop) -> Iterator[threading.Thread]:
    """Another thread runs the loop for ever; it is stopped after the block, and has ended."""
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the loop never stopped"


def address_space() -> int:
    """What is mapped with some right, in bytes: `make sanitize` keeps what is gone without any."""
    maps = re.findall(r"(?m)^([0-9a-f]+)-([0-9a-f]+) (...)", Path("/proc/self/maps").read_text())
    return sum(int(end, 16) - int(begin, 16) for begin, end, rights in maps if rights != "---")


def test_made_here_run_there() -> None:
    """A loop made on one thread runs on another: TCP too, and what was scheduled before."""
    before = open_fds()
    loop = new()
    order: list[str] = []
    loop.call_soon(order.append, "soon")
    loop.call_soon_threadsafe(order.append, "threadsafe")
    loop.driver.post(order.append, "posted")
    task = loop.create_task(asyncio.sleep(0, "ran"))
    with running(loop) as thread:
        assert b"hello" == asyncio.run_coroutine_threadsafe(talk(), loop).result(TIMEOUT)
        assert thread is loop.driver.thread
        assert thread.name == loop.reactor_name
    assert ["posted", "soon", "threadsafe"] == sorted(order)
    assert "ran" == task.result()
    loop.close()
    wait_fds(before)


def test_a_post_alone_wakes_a_loop_that_has_moved() -> None:
    """What was posted before the first run is run, though its wake went to the ring before."""
    loop = new()
    ran = threading.Event()
    loop.driver.post(ran.set)
    with running(loop):
        assert ran.wait(TIMEOUT)
    loop.close()


def test_one_thread_after_the_other() -> None:
    """A loop runs here, there, and here again; what was counted stays counted."""
    loop = new()
    answers = [
        loop.run_until_complete(talk()),
        on_a_thread(lambda: loop.run_until_complete(talk())),
        loop.run_until_complete(talk()),
    ]
    assert [b"hello"] * 3 == answers
    counters = loop.driver.counters()
    assert 3 == counters.accepts
    assert 6 == counters.closes
    assert counters.connections_now == counters.listeners_armed_now == 0
    loop.close()
    assert counters.accepts == loop.driver.counters().accepts


def test_made_on_a_thread_run_with_signals() -> None:
    """The main thread runs a loop that another one has made, with a signal's handler."""
    loop = on_a_thread(new)
    told: list[str] = []

    def handler() -> None:
        told.append("signal")
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_later(TIMEOUT, loop.stop)
    loop.run_forever()
    loop.close()
    assert ["signal"] == told


def test_a_runner_made_here_and_used_there() -> None:
    """``asyncio.Runner`` makes its loop on one thread and runs on another."""
    runner = asyncio.Runner(loop_factory=new)
    runner.get_loop()
    assert [b"hello"] * 2 == [on_a_thread(lambda: runner.run(talk())) for _ in range(2)]
    runner.close()


def test_a_controller() -> None:
    """aiosmtpd's Controller: made here, served there by two runs, stopped from here."""
    loop = new()
    ready = threading.Event()
    port: list[int] = []

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
            port.append(server.sockets[0].getsockname()[1])
            loop.call_soon(ready.set)
            loop.run_forever()
            server.close()
            loop.run_until_complete(server.wait_closed())
            if serving := asyncio.all_tasks(loop):  # the client's end may come after the stop
                loop.run_until_complete(asyncio.wait(serving))
            loop.close()
        finally:
            asyncio.set_event_loop(None)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(TIMEOUT)
    with socket.create_connection(("127.0.0.1", port[0]), TIMEOUT) as client:
        client.sendall(b"mail")
        assert b"mail" == client.recv(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    assert loop.is_closed()


def test_what_is_left_keeps_a_loop_where_it_is() -> None:
    """With connections or listeners on its ring a loop runs on no other thread, and says why."""
    loop = new()
    server, client = loop.run_until_complete(left_open())
    name = threading.current_thread().name
    with pytest.raises(RuntimeError) as caught:
        on_a_thread(loop.run_forever)
    left = f"because it has run on thread {name!r} and left there: connections: 1, listeners: 1. "
    assert left in str(caught.value)
    loop.run_until_complete(say(client, b"y"))  # it goes on where it was
    client.close()
    loop.run_until_complete(EchoProtocol.made[0].lost)
    server.close()
    loop.run_until_complete(server.wait_closed())
    assert b"hello" == on_a_thread(lambda: loop.run_until_complete(talk()))
    loop.close()


def answered(address: Any) -> bool:
    """Whether a server there echoes."""
    try:
        with socket.create_connection(address, TIMEOUT) as client:
            client.sendall(b"x")
            return client.recv(1) == b"x"
    except ConnectionRefusedError:
        return False


def test_a_server_is_closed_when_its_thread_has_ended() -> None:
    """``Server.close()`` here, of a loop that does not run any more there: nobody gets in."""
    loop = new()
    server = on_a_thread(
        lambda: loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    )
    address = server.sockets[0].getsockname()
    server.close()
    assert not answered(address)
    with socket.create_server(address, reuse_port=False):  # as asyncio, with SO_REUSEADDR
        pass
    assert b"hello" == on_a_thread(lambda: loop.run_until_complete(talk()))
    loop.close()


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # as with asyncio
@pytest.mark.parametrize(
    ("use", "how"),
    [
        ("never", "close"),
        ("talk", "close"),
        ("left", "close"),
        ("never", "collect"),
        ("talk", "collect"),
    ],
)
def test_ended_elsewhere_nothing_is_left(use: str, how: str) -> None:
    """Loops whose threads have ended are closed or collected here: no descriptor, no mapping."""

    def once() -> None:
        loops = [on_a_thread(make_and_use)]
        ends = getattr(loops[0], "ends", None)
        if how == "close":
            loops[0].close()
            loops[0].close()  # as often as one likes
            assert loops[0].is_closed()
        else:
            with pytest.warns(ResourceWarning, match="unclosed event loop"):
                forget(loops)
        if ends:
            server, client = ends
            with contextlib.suppress(ConnectionResetError):
                assert b"" == client.recv(1), "the peer never heard of the end"
            client.close()
            for sock in server._sockets:
                sock.close()

    def make_and_use() -> ioxide.Loop:
        loop = ioxide.new_event_loop()  # the defaults: 128 MiB of mapping each
        if use == "talk":
            loop.run_until_complete(talk())
        if use == "left":
            loop.ends = loop.run_until_complete(left_open())  # type: ignore[attr-defined]
        return loop

    def forget(loops: list[ioxide.Loop]) -> None:
        loops.clear()
        gc.collect()

    once()  # whatever is kept for the process
    gc.collect()
    before, mapped = open_fds(), address_space()
    for _ in range(4):
        once()
    gc.collect()
    wait_fds(before)
    assert address_space() - mapped < 128 << 20  # less than that of one of the four


def test_closed_while_it_runs_elsewhere() -> None:
    """A loop that runs on another thread is neither run nor closed here."""
    loop = new()
    with running(loop):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        with pytest.raises(RuntimeError, match="the loop of this ring runs on thread"):
            loop.driver.abandon()
        assert b"hello" == asyncio.run_coroutine_threadsafe(talk(), loop).result(TIMEOUT)
    loop.close()


def test_debug_mode_checks_the_thread_that_runs() -> None:
    """In debug mode ``call_soon()`` of another thread than the running one is refused."""
    loop = new()
    loop.set_debug(True)
    loop.call_soon(lambda: None)  # nobody runs it yet, so anybody may
    with running(loop):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            loop.call_soon(lambda: None)
    loop.close()


def test_no_ring_for_the_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that cannot be had is told of where the loop begins to run; it may be tried again."""
    loop = new()
    fds = open_fds()

    def refuse(*_: object) -> None:
        raise ioxide.RingError(errno.ENOMEM, "no ring today")

    with monkeypatch.context() as patch:
        patch.setattr(driver_module, "open_driver", refuse)
        for _ in range(2):
            with pytest.raises(ioxide.RingError, match="no ring today"):
                on_a_thread(loop.run_forever)
    assert b"hello" == on_a_thread(lambda: loop.run_until_complete(talk()))
    assert fds == open_fds()
    assert 1 == loop.driver.counters().accepts
    loop.close()


def test_a_dropped_driver_leaves_nothing_mapped() -> None:
    """A driver that nobody closed gives back descriptors and memory, on whatever thread it goes."""
    fds, mapped = open_fds(), address_space()
    for made in (ioxide.Driver, lambda config: on_a_thread(lambda: ioxide.Driver(config))):
        drivers = [made(ioxide.ServerConfig())]
        with pytest.warns(ResourceWarning, match="without close"):
            drivers.clear()
    wait_fds(fds)
    assert address_space() - mapped < 128 << 20


def test_between_runs_the_thread_keeps_nothing() -> None:
    """The index by which a ring is entered is the thread's only while it runs the loop."""
    loop = new()
    seen: list[bool] = []
    loop.call_soon(lambda: seen.append(loop.driver.ring_fd_registered))
    loop.call_soon(loop.stop)
    assert not loop.driver.ring_fd_registered
    loop.run_forever()
    assert [True] == seen
    assert not loop.driver.ring_fd_registered
    loop.close()


@pytest.mark.parametrize("case", ["never-run", "has-run", "closed", "at-once", "in-use"])
def test_made_before_a_fork(case: str) -> None:
    """A forked child runs or closes a loop of its parent's that has nothing left on its ring."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.smoke.forked_loop", case],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    found = json.loads(done.stdout)
    ran = {"echoed": "hello", "reader": "p", "signal": "told 10 times", "posted": "yes"}
    children: Any = {
        "never-run": [ran],
        "has-run": [ran],
        "closed": [{"closed": True}],
        "at-once": [ran, ran],
        "in-use": [
            {
                "run": "left there: connections: 1, listeners: 1",
                "close": "this ring belongs to the process that made it",
            }
        ],
    }[case]
    assert {"children": children, "parent": ran, "exits": [0] * len(children)} == found
