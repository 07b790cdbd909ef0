# SPDX-License-Identifier: MIT
"""Issue #103: NAPI busy polling and minimum waits are knobs, off by default, refused where absent.

The kernel's pitfalls: a minimum wait without a timeout ends an idle enter with -ETIME again and
again; and one beyond the timeout holds up the loop's timers (both 6.18).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ioxide
from tests.support import TIMEOUT, asleep, at_rest, connect, echo, read_exactly, serve, until

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(103)]


@pytest.mark.needs("MIN_WAIT")
def test_minimum_wait_answers_a_lone_request() -> None:
    """With a minimum wait of 1 ms one client alone is answered."""
    with serve(echo, min_wait_us=1000, min_wait_nr=64) as server, connect(server) as client:
        for _ in range(20):
            client.sendall(b"alone")
            assert b"alone" == read_exactly(client, 5)


@pytest.mark.needs("MIN_WAIT")
def test_minimum_wait_does_not_wake_an_idle_reactor() -> None:
    """An idle reactor with a minimum wait of 5 ms makes no enter (unfixed: 200 a second)."""
    with serve(echo, min_wait_us=5000, min_wait_nr=8) as server:
        until(lambda: asleep(server), "the reactor asleep")
        enters = server.stats().enters
        threading.Event().wait(1.0)
        assert enters == server.stats().enters


@pytest.mark.needs("MIN_WAIT")
def test_minimum_wait_does_not_wake_a_reactor_that_has_worked() -> None:
    """The same with completions taken in that stay in the queue (unfixed on 6.18: 430 a second)."""
    with serve(echo, min_wait_us=2000, min_wait_nr=8) as server, connect(server) as client:
        for _ in range(5):
            client.sendall(b"alone")
            assert b"alone" == read_exactly(client, 5)
        until(lambda: asleep(server), "the reactor asleep")
        enters = server.stats().enters
        threading.Event().wait(1.0)
        assert server.stats().enters - enters < 10
        client.sendall(b"awake")
        assert b"awake" == read_exactly(client, 5)


@pytest.mark.slow  # each enter waits for two seconds, from which the timer must stand out
@pytest.mark.needs("MIN_WAIT")
def test_minimum_wait_does_not_hold_up_a_timer() -> None:
    """A timer of 50 ms beside a minimum wait of 2 s runs when it is due."""
    took: list[float] = []

    async def handler(conn: ioxide.Connection) -> None:
        begun = time.monotonic()
        await asyncio.sleep(0.05)
        took.append(time.monotonic() - begun)
        conn.write(b"k")

    with (
        serve(handler, min_wait_us=2_000_000, min_wait_nr=64) as server,
        connect(server) as client,
    ):
        assert b"k" == read_exactly(client, 1)
    assert took[0] < 1.5


def _napi_lines(reactor: ioxide.Reactor) -> dict[str, str]:
    text = Path(f"/proc/self/fdinfo/{reactor.driver.ring_fd}").read_text()
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs if "napi" in name.lower()}


@pytest.mark.needs("NAPI", "MIN_WAIT")  # the lines came in 6.12, with minimum waits
def test_napi_is_registered_only_when_asked_for() -> None:
    """napi_busy_poll_us is what the kernel says of the ring; by default it is off."""
    with serve(echo, napi_busy_poll_us=50, napi_prefer_busy_poll=True) as server:
        lines = _napi_lines(server.reactors[0])
        assert "enabled" == lines["NAPI"]
        assert "50000" == lines["napi_busy_poll_dt"]
    with serve(echo) as server:
        assert "disabled" == _napi_lines(server.reactors[0])["NAPI"]


def test_knobs_are_off_by_default() -> None:
    """Whoever asks for nothing gets no busy polling, minimum wait, bundles or zero copy."""
    config = ioxide.ServerConfig()
    assert (0, False, 0, 1) == (
        config.napi_busy_poll_us,
        config.napi_prefer_busy_poll,
        config.min_wait_us,
        config.min_wait_nr,
    )
    assert (None, False, False) == (config.incremental, config.recv_bundle, config.zero_copy_send)


@pytest.mark.needs("MIN_WAIT")
@pytest.mark.parametrize(("wait_us", "at_once"), [(500_000, True), (0, False)])
def test_minimum_wait_takes_completions_in_batches(wait_us: int, at_once: bool) -> None:
    """Sixteen requests one by one are few enters with a minimum wait, and many without."""
    with (
        serve(echo, min_wait_us=wait_us, min_wait_nr=16) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(16)]
        until(lambda: server.stats().connections_now == 16, "all connections")
        until(lambda: at_rest(server), "a reactor at rest")
        enters, cqes = server.stats().enters, server.stats().cqes
        for client in clients:
            client.sendall(b"x")
            time.sleep(0.01)  # apart: at once they would be a batch without any wait
            if not at_once:  # where nothing holds the answer back, each request is its own batch
                assert b"x" == read_exactly(client, 1)
        for client in clients if at_once else ():
            assert b"x" == read_exactly(client, 1)
        enters, cqes = server.stats().enters - enters, server.stats().cqes - cqes
        assert cqes >= 16
        assert at_once == (enters <= 12), f"{cqes} completions in {enters} enters"


@pytest.mark.needs("NAPI")
def test_the_reactor_polls_the_device_only_when_asked_to() -> None:
    """Over a device with a NAPI id (veth, GRO) packets are polled with the knob on, else none."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("napi_reactor.py"))],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    (came_before, before), (came_with, polled), (came_after, after) = json.loads(done.stdout)
    assert [60_000] * 3 == [came_before, came_with, came_after]
    assert (0, True, 0) == (before, polled > 0, after)
