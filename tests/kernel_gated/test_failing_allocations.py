# SPDX-License-Identifier: MIT
"""The kernel has no memory for one allocation, whichever it is: nothing is lost by that.

Each step of a reactor's life is tried again and again, and each time the next allocation of it
fails, until none is left that could. What is lost would be a descriptor, a buffer, a byte or a
connection.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

import ioxide
from ioxide._driver.driver import Driver
from tests.kernel_gated.failing import all_may_fail, arm, disarm, walk
from tests.kernel_gated.modes import MODES, Changes
from tests.kernel_gated.ways import all_back
from tests.support import (
    SMALL,
    Whole,
    connect,
    noise,
    on_reactor,
    open_fds,
    read_exactly,
    serve,
    until,
)

pytestmark = [
    pytest.mark.kernel_gated,
    pytest.mark.needs("FAIL_NTH"),
    pytest.mark.timeout(120),
]

ZERO_COPY = pytest.mark.needs("SEND_ZC")
by_mode = pytest.mark.parametrize("changes", MODES)
ASKED = noise(3000, seed=15)
ANSWER = bytearray(noise(50_000, seed=16))
"""Copied, into memory that is mapped for it and given back with the last connection."""


@pytest.fixture(autouse=True)
def _all_may_fail() -> Iterator[None]:
    with all_may_fail():
        yield


def told(step: str, faults: Counter[str]) -> None:
    """Shows how many allocations failed; none would have tried nothing."""
    print(f"{step}: {dict(faults)}")
    assert faults, "no allocation failed: the kernel was not reached"


@by_mode
def test_a_start_fails_whole_or_not_at_all(changes: Changes) -> None:
    """A ring that cannot be had leaves no descriptor behind, and the next one can be had."""
    config = SMALL.replace(**changes)
    with closing(Driver(config)):
        pass  # what is imported and allocated once
    before = open_fds()
    refused: list[int | None] = []

    def attempt(nth: int) -> str:
        arm(nth)
        try:
            driver = Driver(config)
        except (OSError, MemoryError) as error:
            refused.append(getattr(error, "errno", errno.ENOMEM))
        else:
            driver.close()
        failed = disarm()
        until(lambda: open_fds() == before, "exactly the descriptors of before")
        return failed

    told(f"start, refused {Counter(refused)}", walk(attempt))
    with closing(Driver(config)):
        pass


class Lives:
    """A server's handler, and the steps of its connections' lives: in one of them an allocation
    fails.

    Steps change on the reactor's thread.
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self._armed = False
        self._conn: ioxide.Connection | None = None
        self.nth = 0
        self.refused = 0
        """Writes that raised MemoryError."""
        self.failed = ""
        """In which call an allocation failed."""

    def go_on(self, step: str) -> None:
        if self._armed:
            self.failed, self._armed = disarm(), False
        if self.nth and step == self._step:
            arm(self.nth)
            self._armed = True

    def abort(self) -> None:
        """Ends the connection, of which a receive is in the kernel."""
        assert self._conn is not None
        self.go_on("cancel")
        self._conn.abort()

    async def __call__(self, conn: ioxide.Connection) -> None:
        self.go_on("receive")
        got = b""
        while len(got) < len(ASKED) and (data := await conn.recv()):
            got += data
        assert Whole(ASKED) == Whole(got)
        self.go_on("send")
        try:
            conn.write(ANSWER)
        except MemoryError:
            self.refused += 1
            assert 0 == conn.unsent
            conn.write(ANSWER)
        await conn.flush()
        self._conn = conn
        assert b"" == await conn.recv()
        if self._step != "cancel":  # that goes on until the receive is gone
            self.go_on("close")


CONSEQUENCES = ("accept_pauses", "accepts_shed", "memory_rests", "zc_fallbacks")
FREE = {"cancel", "close"}
"""Steps that take no memory of the calls that the core arms.

A cancel is a request, of which a ring allocates eight at a time, and looks the other one up
(io_uring/io_uring.c and cancel.c of 6.12). A connection is ended by close(2) and not by the ring,
and the receive buffers of its own are given back by IORING_UNREGISTER_PBUF_RING, which only frees
(io_uring/kbuf.c of 6.12).
"""
STEPS = [
    *(pytest.param(step, {}, id=step) for step in ("accept", "receive", "send", "cancel", "close")),
    *(
        pytest.param(step, {"zero_copy_send": True}, id=f"{step}-zc", marks=ZERO_COPY)
        for step in ("send", "close")
    ),
]


@by_mode
@pytest.mark.parametrize(("step", "send"), STEPS)
def test_a_connection_lives_and_nothing_is_lost(step: str, send: Changes, changes: Changes) -> None:
    """Every byte arrives both ways, the stream ends whole, and everything comes back.

    Each life has a ring of its own: what the first receive and the first send of a ring allocate,
    the ring keeps for those that follow (seen on 6.12). Only for a connection that is to have
    receive buffers of its own, and cannot have them, is there no room: it is closed at once, and
    counted.
    """
    config = changes | send

    def life(nth: int) -> str:
        """One connection, of which the nth allocation of a step fails, and in which call."""
        lives = Lives(step)
        with serve(lives, **config) as server:
            before = open_fds()
            reactor = server.reactors[0]
            lives.nth = nth
            on_reactor(reactor, lambda: lives.go_on("accept"))
            with connect(server) as client:
                try:
                    client.sendall(ASKED)
                    assert Whole(ANSWER) == Whole(read_exactly(client, len(ANSWER)))
                    if step == "cancel":
                        on_reactor(reactor, lives.abort)
                    else:
                        client.shutdown(socket.SHUT_WR)
                        assert b"" == client.recv(1)
                except AssertionError:
                    if 0 == server.stats().accepts_shed:
                        raise
            until(lambda: 1 == server.stats().closes + server.stats().accepts_shed, "its end")
            on_reactor(reactor, lambda: lives.go_on("over"))
            until(lambda: open_fds() == before, "exactly the descriptors of before")
        stats = server.stats()
        all_back(stats, config)
        assert stats.accepts_shed == 0 or ("incremental" in config and step == "accept")
        whole = 1 - stats.accepts_shed
        assert (whole, whole) == (stats.accepts, stats.closes)
        assert (whole * len(ASKED), whole * len(ANSWER)) == (
            stats.bytes_received,
            stats.bytes_sent,
        )
        assert (0, step == "cancel") == (stats.handler_faults, stats.aborts)
        assert lives.refused == (lives.failed == "mmap" and step == "send")
        assert stats.memory_rests <= (lives.failed == "enter")
        followed.update({name: getattr(stats, name) for name in CONSEQUENCES})
        return lives.failed

    followed: Counter[str] = Counter()
    assert "" == life(0)
    assert not +followed, "of a life in which nothing fails"
    faults = walk(life)
    if step in FREE:
        assert Counter() == faults, "the step takes memory now, see FREE"
    else:
        told(f"{step}, {dict(+followed)}", faults)
