# SPDX-License-Identifier: MIT
"""Issue #98: the ring is entered by a registered index, where one is to be had.

IORING_REGISTER_RING_FDS (5.18) saves the lookup of a descriptor per enter.  A thread has sixteen
such indices; the seventeenth registration fails with EBUSY (6.18).
"""

from __future__ import annotations

import contextlib
import os

import pytest

import ioxide
from tests.support import SMALL, connect, echo, open_fds, read_exactly, serve, wait_fds

pytestmark = pytest.mark.issue(98)


def test_forty_rings_on_one_thread() -> None:
    """A thread has sixteen registered ring descriptors; forty drivers in a row leave them free."""
    before = open_fds()
    registered = []
    for _ in range(40):
        driver = ioxide.Driver(SMALL)
        registered.append(driver.ring_fd_registered)
        assert driver.close()
    assert [True] * 40 == registered
    wait_fds(before)


def test_the_seventeenth_ring_of_a_thread_works() -> None:
    """A thread has room for sixteen registered rings; the seventeenth uses its descriptor."""
    with contextlib.ExitStack() as stack:
        drivers = []
        for _ in range(17):
            driver = ioxide.Driver(SMALL)
            stack.callback(driver.close)
            drivers.append(driver)
        assert [True] * 16 + [False] == [driver.ring_fd_registered for driver in drivers]
        for driver in drivers:
            driver.wait(0)  # OSError if it entered by an index that it does not have
    driver = ioxide.Driver(SMALL)
    assert driver.ring_fd_registered
    assert driver.close()


def test_the_ring_is_entered_by_its_index() -> None:
    """With /dev/null in the place of its ring's descriptor a reactor goes on serving.

    The index holds the ring's file itself (5.18); the descriptor is put back for the end.
    """
    with serve(echo) as server, connect(server) as client:
        ring_fd = server.reactors[0].driver.ring_fd
        kept = os.dup(ring_fd)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, ring_fd, inheritable=False)
            for _ in range(3):
                client.sendall(b"by index")
                assert b"by index" == read_exactly(client, 8)
        finally:
            os.dup2(kept, ring_fd, inheritable=False)
            os.close(kept)
            os.close(null)
        assert server.reactors[0].is_alive
