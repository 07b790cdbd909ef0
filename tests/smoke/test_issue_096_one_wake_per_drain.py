# SPDX-License-Identifier: MIT
"""Issue #96: one eventfd write wakes the reactor for whatever is queued, and none is ever lost.

The flag that says "a wake is on its way" is cleared before the queue is looked at.  Cleared after,
a callback queued between the look and the clearing finds the flag set, writes nothing, and sleeps
in the queue until something else happens.  No timer runs in these tests: a lost wake stays lost.
The kernel tells how often was written since the last read (/proc/self/fdinfo, eventfd-count).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from tests.support import (
    TIMEOUT,
    Holder,
    connect,
    echo,
    on_reactor,
    read_exactly,
    serve,
    until,
)

pytestmark = pytest.mark.issue(96)


class _Watched(deque[Any]):
    """The queue of posts; at each look that finds it empty, `beside` runs on another thread."""

    armed = False
    looks = 0

    def __len__(self) -> int:
        count = super().__len__()
        if self.armed and not count:
            self.armed = False
            self.looks += 1
            thread = threading.Thread(target=self.beside)
            thread.start()
            thread.join(TIMEOUT)
        return count

    def beside(self) -> None:
        raise NotImplementedError


def test_a_post_beside_the_drain_is_not_lost() -> None:
    """A callback posted right after the drain found the queue empty runs all the same."""
    ran = threading.Event()
    watched: list[_Watched] = []

    with serve(echo) as server:
        reactor = server.reactors[0]
        driver = reactor.driver

        class Watched(_Watched):
            def beside(self) -> None:
                reactor.post(ran.set)

        def watch() -> None:
            # Called by run_posts(), which looks again when this has returned.
            watched.append(Watched(driver.posts))
            driver.posts = watched[0]
            watched[0].armed = True

        on_reactor(reactor, watch)
        until(ran.is_set, "the callback posted beside the drain")
        assert 1 == watched[0].looks
        with connect(server) as client:
            client.sendall(b"x")
            assert b"x" == read_exactly(client, 1)


def test_posts_of_several_threads_all_run() -> None:
    """Four threads post 500 callbacks each while the reactor works; each runs once."""
    ran: list[tuple[int, int]] = []

    with serve(echo) as server:
        reactor = server.reactors[0]

        def post(number: int) -> None:
            for index in range(500):
                reactor.post(ran.append, (number, index))

        threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        until(lambda: len(ran) == 2000, "all two thousand callbacks")
        stats = server.stats()
        # Each post either wrote or found a write pending.
        assert 2000 == stats.wake_writes + stats.wakes_coalesced
    for number in range(4):
        assert list(range(500)) == [index for owner, index in ran if owner == number]


def test_wakes_are_coalesced() -> None:
    """However many posts come while the reactor is busy, one eventfd write wakes it."""
    busy, release, ran = threading.Event(), threading.Event(), []

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)

    with serve(echo) as server:
        reactor = server.reactors[0]
        reactor.post(block)
        assert busy.wait(TIMEOUT)
        before = server.stats().wake_writes
        for _ in range(100):
            reactor.post(lambda: ran.append(time.monotonic()))
        written = server.stats().wake_writes - before
        release.set()
        until(lambda: len(ran) == 100, "all hundred callbacks")

    assert 1 == written


def test_one_wake_for_posts_calls_and_returns() -> None:
    """What four threads queue in three ways while the reactor is busy is one eventfd write."""
    holder = Holder()
    ran: list[str] = []
    busy, release = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(holder, recv_slots=2))
        reactor = server.reactors[0]
        one, two, starved = (stack.enter_context(connect(server)) for _ in range(3))
        for client in (one, two):
            client.sendall(b"keep")
            assert b"k" == read_exactly(client, 1)
        starved.sendall(b"x")
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
        reactor.post(block)
        assert busy.wait(TIMEOUT)

        def queue(number: int) -> None:
            for _ in range(25):
                reactor.post(ran.append, "post")
                reactor.loop.call_soon_threadsafe(ran.append, "call")
            if number < len(views):
                views[number].release()

        views = list(holder.kept)
        holder.kept.clear()
        threads = [threading.Thread(target=queue, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        # The kernel's own count of what was written and not yet read (eventfd(2), hexadecimal).
        info = Path(f"/proc/self/fdinfo/{reactor.driver.wake_fd}").read_text()
        count = next(line.split()[1] for line in info.splitlines() if "eventfd-count" in line)
        release.set()
        until(lambda: len(ran) == 200, "all two hundred callbacks")
        assert b"k" == read_exactly(starved, 1)
        assert 1 == int(count, 16)
