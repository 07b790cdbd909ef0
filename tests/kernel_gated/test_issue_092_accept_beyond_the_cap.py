# SPDX-License-Identifier: MIT
"""Issue #92: connections beyond the cap are shed, and end neither the reactor nor the others.

In incremental mode every connection has a buffer group of its own.  Its id comes from a free list,
and the kernel refuses IORING_REGISTER_PBUF_RING for an id that is in use (-EEXIST, 5.19): a
registration made behind the reactor's back stands for every reason there can be.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes
from tests.support import (
    connect,
    echo,
    held_and_shed,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(92)]


@pytest.mark.parametrize("mode", MODES)
def test_connections_beyond_the_cap_are_shed(mode: Changes) -> None:
    """Connection 5 of 4 is closed, the others live, capacity comes back; twenty times."""
    own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
    mode = {"incremental": own} if "incremental" in mode else {**mode, "max_connections": 4}
    with serve(echo, **mode) as server:
        for cycle in range(20):
            held_and_shed(server, held=4, shed=3)
            assert 3 * (cycle + 1) == server.stats().accepts_shed
            until(lambda: server.stats().connections_now == 0, "room for four")
            if "incremental" in mode:
                assert 4 == server.stats().groups_free_now


# <linux/io_uring.h>; the number of the system call is the same on every architecture.
_IO_URING_REGISTER = 427
_REGISTER_PBUF_RING, _UNREGISTER_PBUF_RING = 22, 23


class _BufReg(ctypes.Structure):
    """struct io_uring_buf_reg"""

    _fields_ = (
        ("ring_addr", ctypes.c_uint64),
        ("ring_entries", ctypes.c_uint32),
        ("bgid", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("resv", ctypes.c_uint64 * 3),
    )


def _register(ring_fd: int, opcode: int, group: int, pages: mmap.mmap) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    view = ctypes.c_char.from_buffer(pages)
    reg = _BufReg(ring_addr=ctypes.addressof(view), ring_entries=1, bgid=group)
    if opcode == _UNREGISTER_PBUF_RING:
        reg.ring_addr = reg.ring_entries = 0
    result = libc.syscall(_IO_URING_REGISTER, ring_fd, opcode, ctypes.byref(reg), 1)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.needs("INC")
def test_a_group_that_cannot_be_registered_sheds() -> None:
    """While the next group id is taken, connections are shed; others live; then one is served."""
    own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
    with (
        mmap.mmap(-1, mmap.PAGESIZE) as pages,
        serve(echo, incremental=own) as server,
        connect(server) as held,
        contextlib.ExitStack() as stack,
    ):
        extras: list[socket.socket] = []
        reactor = server.reactors[0]
        held.sendall(b"x")
        assert b"x" == read_exactly(held, 1)

        def take() -> None:
            # Ids are given out from 2 upwards: the held connection has 2.
            _register(reactor.driver.ring_fd, _REGISTER_PBUF_RING, 3, pages)
            # While the reactor is here the kernel's backlog takes them: they come in one batch.
            extras.extend(stack.enter_context(connect(server)) for _ in range(3))

        def give_back() -> None:
            _register(reactor.driver.ring_fd, _UNREGISTER_PBUF_RING, 3, pages)

        on_reactor(reactor, take)
        until(lambda: server.stats().accepts_shed == 3, "three connections shed")
        for extra in extras:
            assert b"" == extra.recv(1)
        held.sendall(b"y")
        assert b"y" == read_exactly(held, 1)
        assert 3 == server.stats().groups_free_now

        on_reactor(reactor, give_back)
        with connect(server) as fresh:
            fresh.sendall(b"z")
            assert b"z" == read_exactly(fresh, 1)
            fresh.shutdown(1)
            assert b"" == read_to_end(fresh)
