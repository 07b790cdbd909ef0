# SPDX-License-Identifier: MIT
"""An idle server does not look like one that waits for a disk (liburing issue 943)."""

from __future__ import annotations

import pytest

from ioxide._errata.idle import least_blocked
from ioxide._ring import lib
from tests.support import connect, echo, read_exactly, serve

pytestmark = pytest.mark.kernel_gated

REACTORS = 4


def test_idle_reactors_are_not_blocked() -> None:
    """Where the kernel can (IORING_FEAT_NO_IOWAIT, 6.15); elsewhere the reactor works as well."""
    before = least_blocked()
    with serve(echo, reactors=REACTORS) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"ping" == read_exactly(client, 4)
        during = least_blocked()
        if server.reactors[0].driver.features & lib.IOX_FEAT_NO_IOWAIT:
            assert during < before + REACTORS // 2, f"{during} tasks blocked, {before} before"
        client.sendall(b"pong")
        assert b"pong" == read_exactly(client, 4)


@pytest.mark.needs("NO_IOWAIT")
def test_reactor_asks_for_it() -> None:
    """Where the kernel can, each reactor waits without being counted."""
    before = least_blocked()
    with serve(echo, reactors=REACTORS) as server:
        assert all(r.driver.features & lib.IOX_FEAT_NO_IOWAIT for r in server.reactors)
        assert least_blocked() < before + REACTORS // 2
