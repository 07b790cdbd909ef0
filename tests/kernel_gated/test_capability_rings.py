# SPDX-License-Identifier: MIT
"""How a ring is set up and entered: REGISTERED_RING_FD, SINGLE_ISSUER, DEFER_TASKRUN, NO_SQARRAY.

Also CQ_OVERFLOW_FLAG: what it does when it is full.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs("REGISTERED_RING_FD")
def test_ring_serves_through_its_index_under_a_closed_number() -> None:
    """A ring is entered by index while its descriptor's number belongs to another file."""
    with RawRing(flags=REACTOR_FLAGS) as ring, Path("/dev/null").open("rb") as null:
        index = int(lib.iox_probe_ring_fd_register(ring.raw))
        assert index >= 0
        saved = os.dup(ring.fd)
        os.dup2(null.fileno(), ring.fd)  # the number is no ring any more
        try:
            ring.push(lib.IOX_PROBE_OP_NOP, user_data=1)
            assert -errno.EOPNOTSUPP == ring.enter(wait=1)
            assert ring.enter(wait=1, fd=index, flags=lib.IOX_ENTER_REGISTERED_RING) == 1
            assert [1] == [c.user_data for c in ring.reap()]
        finally:
            os.dup2(saved, ring.fd, inheritable=False)
            os.close(saved)
        assert int(lib.iox_probe_ring_fd_unregister(ring.raw, index)) == 1


@pytest.mark.needs("REGISTERED_RING_FD")
def test_thread_has_sixteen_places_for_rings() -> None:
    """The seventeenth registration of a thread is refused with EBUSY, and a freed place serves."""

    def register_many() -> list[int]:  # on a thread of its own: the places are per thread
        with RawRing() as ring:
            results = [int(lib.iox_probe_ring_fd_register(ring.raw)) for _ in range(17)]
            lib.iox_probe_ring_fd_unregister(ring.raw, 7)
            results.append(int(lib.iox_probe_ring_fd_register(ring.raw)))
            for index in range(16):
                lib.iox_probe_ring_fd_unregister(ring.raw, index)
            return results

    with ThreadPoolExecutor(1) as pool:
        assert [*range(16), -errno.EBUSY, 7] == pool.submit(register_many).result(timeout=30)


@pytest.mark.needs("SINGLE_ISSUER")
def test_other_thread_may_neither_enter_nor_register() -> None:
    """Both calls fail with EEXIST on a thread that is not the ring's."""
    with RawRing(flags=lib.IOX_SETUP_SINGLE_ISSUER) as ring, ThreadPoolExecutor(1) as pool:
        ring.push(lib.IOX_PROBE_OP_NOP)
        assert ring.enter(wait=1) == 1
        ring.reap()
        ring.push(lib.IOX_PROBE_OP_NOP)
        assert pool.submit(ring.enter).result(timeout=30) == -errno.EEXIST
        listed = pool.submit(lib.iox_probe_has_opcode, ring.raw, 0).result(timeout=30)
        assert listed == -errno.EEXIST
        assert ring.enter(wait=1) == 1


@pytest.mark.needs("DEFER_TASKRUN")
def test_forty_arrivals_are_all_posted_by_entering() -> None:
    """Bytes for forty receives leave the completion queue empty until the thread enters."""
    pairs = [socket.socketpair() for _ in range(40)]
    try:
        with RawRing(entries=64, flags=REACTOR_FLAGS) as ring:
            ring.provide(group=1, entries=64, size=16)
            for number, (_, far) in enumerate(pairs):
                ring.recv(far.fileno(), group=1, user_data=number)
            assert ring.enter() == 40
            for near, _ in pairs:
                near.sendall(b"now")
            time.sleep(0.02)  # not a wait for anything: a chance to post what must not be posted
            assert ring.ready == 0
            assert set(range(40)) == {c.user_data for c in ring.collect(40)}
    finally:
        for near, far in pairs:
            near.close()
            far.close()


@pytest.mark.needs("NO_SQARRAY")
def test_queue_without_array_is_a_plain_ring() -> None:
    """A hundred requests in batches of uneven size complete in order, past the queue's end."""
    with RawRing(entries=16, flags=lib.IOX_SETUP_NO_SQARRAY | REACTOR_FLAGS) as ring:
        sent = 0
        order = []
        for batch in (16, 3, 7, 16, 1, 13, 16, 5, 11, 12):
            for _ in range(batch):
                ring.push(lib.IOX_PROBE_OP_NOP, user_data=sent)
                sent += 1
            assert ring.enter(wait=batch) == batch
            order += [c.user_data for c in ring.reap()]
    assert sent == 100
    assert list(range(100)) == order


@pytest.mark.needs("CQ_OVERFLOW_FLAG")
def test_flood_of_a_small_queue_is_flagged_and_kept() -> None:
    """Messages overflow a queue of eight: the flag is set, all of them come, the flag clears."""
    with RawRing(entries=4, cq_entries=8) as ring, RawRing(entries=32) as sender:
        for number in range(30):
            sender.push(lib.IOX_PROBE_OP_MSG_RING, fd=ring.fd, len=1, off=number)
        sender.collect(30)
        assert ring.cq_overflow
        assert ring.ready == 8
        found = ring.collect(30)
        assert set(range(30)) == {c.user_data for c in found}
        assert not ring.cq_overflow


@pytest.mark.needs("CQ_OVERFLOW_FLAG")
def test_queue_that_is_large_enough_is_not_flagged() -> None:
    """The control: as many completions as there are places raise no flag."""
    with RawRing(entries=8, cq_entries=8) as ring:
        for _ in range(8):
            ring.push(lib.IOX_PROBE_OP_NOP)
        assert ring.enter(wait=8) == 8
        assert not ring.cq_overflow
        assert ring.ready == 8
