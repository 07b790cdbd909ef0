# SPDX-License-Identifier: MIT
"""Issue #99: a reactor that nobody needs makes no system call.

Nothing in the kernel asks for a timer beside a ring; one that is armed without need costs four
wake-ups a second, for every reactor.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support import (
    asleep,
    connect,
    echo,
    read_exactly,
    serve,
    until,
)

pytestmark = pytest.mark.issue(99)


def test_an_idle_server_makes_no_system_call() -> None:
    """With nobody connected, no timer and no post, the reactor's thread sleeps (#99)."""
    with serve(echo) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        client.close()
        until(lambda: server.stats().connections_now == 0, "nobody connected")
        until(lambda: asleep(server), "the reactor asleep")
        status = Path(f"/proc/self/task/{server.reactors[0].native_id}/status")

        def switches() -> int:
            lines = status.read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

        enters, slept = server.stats().enters, switches()
        threading.Event().wait(1.0)
        assert enters == server.stats().enters
        assert slept == switches()
