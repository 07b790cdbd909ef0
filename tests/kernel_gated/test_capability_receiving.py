# SPDX-License-Identifier: MIT
"""PBUF_RING (5.19), MULTISHOT_RECV (6.0), MULTISHOT_ACCEPT (5.19): what the reactor receives by."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair, total

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs("PBUF_RING")
def test_empty_group_is_enobufs_until_a_buffer_comes_back() -> None:
    """Without a buffer a receive ends with ENOBUFS, with one given back it gets the bytes."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=2, entries=2, size=16)
        near.sendall(pattern(48))
        results = []
        for _ in range(3):  # one by one: 6.1 posts the failure first when submitted together
            ring.recv(far.fileno(), group=2)
            results += [c.res for c in ring.collect(1)]
        assert [16, 16, -errno.ENOBUFS] == results

        buffers.give(1)
        ring.recv(far.fileno(), group=2)
        (cqe,) = ring.collect(1)
        assert (16, 1) == (cqe.res, cqe.buffer_id)
        assert pattern(48)[32:] == buffers.read(1, 16)


@pytest.mark.needs("MULTISHOT_RECV")
def test_multishot_receive_ends_with_its_buffers() -> None:
    """One request uses all four buffers in order, then ends with ENOBUFS and without F_MORE."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=2, entries=4, size=64)
        near.sendall(pattern(1024))
        ring.recv(far.fileno(), group=2, ioprio=lib.IOX_RECV_MULTISHOT)
        found = ring.collect(lambda cqes: any(not c.more for c in cqes))
        assert [(64, True)] * 4 + [(-errno.ENOBUFS, False)] == [(c.res, c.more) for c in found]
        assert pattern(1024)[:256] == b"".join(
            buffers.read(c.buffer_id or 0, 64) for c in found[:4]
        )


@pytest.mark.needs("MULTISHOT_RECV")
def test_multishot_receive_ends_with_the_stream() -> None:
    """The peer's end of stream is a last completion of 0 bytes, without F_MORE or buffer."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        ring.provide(group=2, entries=4, size=64)
        ring.recv(far.fileno(), group=2, ioprio=lib.IOX_RECV_MULTISHOT)
        near.sendall(b"bye")
        assert [3] == [c.res for c in ring.collect(lambda cqes: total(cqes) >= 3)]
        near.shutdown(socket.SHUT_WR)
        (end,) = ring.collect(1)
        assert (0, False, None) == (end.res, end.more, end.buffer_id)


@pytest.mark.needs("MULTISHOT_ACCEPT")
def test_multishot_accept_takes_all_that_wait() -> None:
    """One request accepts five connections over TCP, each a socket that talks to its client."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        clients = [socket.create_connection(listener.getsockname(), 3) for _ in range(5)]
        accepted = []
        with RawRing(flags=REACTOR_FLAGS) as ring:
            ring.push(
                lib.IOX_PROBE_OP_ACCEPT,
                fd=listener.fileno(),
                ioprio=lib.IOX_ACCEPT_MULTISHOT,
                op_flags=socket.SOCK_CLOEXEC,
            )
            found = ring.collect(5)
            accepted = [socket.socket(fileno=c.res) for c in found if c.res >= 0]
        try:
            assert [True] * 5 == [c.more for c in found]
            assert [c.getsockname() for c in clients] == [s.getpeername() for s in accepted]
            assert not any(os.get_inheritable(s.fileno()) for s in accepted)
        finally:
            for sock in (*clients, *accepted):
                sock.close()
