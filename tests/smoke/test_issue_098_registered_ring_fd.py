# SPDX-License-Identifier: MIT
"""Issue #98: the ring is entered by a registered index, where one is to be had.

IORING_REGISTER_RING_FDS (5.18) saves the lookup of a descriptor per enter.  A thread has sixteen
such indices; the seventeenth registration fails with EBUSY (6.18).
"""

from __future__ import annotations

import contextlib

import pytest

import ioxide
from tests.support import (
    SMALL,
    open_fds,
    wait_fds,
)

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
