# SPDX-License-Identifier: MIT
"""A graceful end is bounded: a peer that takes nothing after our FIN pins neither fd nor slab.

After the FIN only the kernel knows what the peer has not acknowledged; TCP_USER_TIMEOUT (tcp(7))
makes it give such a peer up.  It drops the write queue then, so that the receive ends with
ETIMEDOUT and a SEND_ZC gets its notification, which shutdown(2) does not bring about (6.18).
"""

from __future__ import annotations

import socket
import time

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, OVERFLOWS, SENDS, Changes, brief
from tests.support import (
    NARROW,
    connect,
    noise,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_fds,
)

pytestmark = pytest.mark.issue(97)

BODY = noise(256 << 10, seed=245)


async def answer(conn: ioxide.Connection) -> None:
    """One answer that fits the socket's buffer, and the end."""
    await conn.recv(1)
    conn.write(BODY)
    await conn.flush()


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half-closed"])
@pytest.mark.parametrize("mode", brief(MODES, "incremental"))
@pytest.mark.parametrize("send", SENDS)
def test_a_peer_that_takes_nothing_after_our_fin(
    send: Changes, mode: Changes, half_closed: bool
) -> None:
    """It is given up after send_timeout_ms, counted, and leaves neither descriptor nor slab."""
    before = open_fds()
    with serve(
        answer, read_timeout_ms=0, send_timeout_ms=600, pool_max=0, **send, **mode
    ) as server:
        with connect(server, rcvbuf=NARROW) as client:
            client.sendall(b"x")
            if half_closed:
                client.shutdown(socket.SHUT_WR)
            until(lambda: server.stats().bytes_sent == len(BODY), "all of it with the kernel")
            # A copy whose receive has ended has nothing of ours: the descriptor is closed at once.
            pinned = not half_closed or bool(send)
            until(lambda: server.stats().closes == 1, "the connection's end")
            stats = server.stats()
            assert int(pinned) == stats.send_timeouts
            assert (int(pinned), int(not pinned)) == (stats.closes_send_timeout, stats.closes_eof)
            assert (0, 0) == (stats.slab_bytes_now, stats.draining_sends_now)
            assert bool(send) == (stats.sends_zc == stats.zc_notifs == 1)
    wait_fds(before)


@pytest.mark.slow  # the pace is what is tested: three seconds of it
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("send", SENDS)
def test_a_slow_peer_gets_all_of_it(send: Changes, overflow: Changes) -> None:
    """One that takes something now and then, for longer than either timeout, is not given up."""
    with (
        serve(answer, read_timeout_ms=1500, send_timeout_ms=2500, **send, **overflow) as server,
        connect(server, rcvbuf=NARROW) as client,
    ):
        client.sendall(b"x")
        until(lambda: server.stats().bytes_sent == len(BODY), "all of it with the kernel")
        began, got = time.monotonic(), b""
        while time.monotonic() - began < 3:
            got += read_exactly(client, 4096)
            time.sleep(0.25)  # the peer's pace, which is what is tested
        assert len(got) < len(BODY) // 2, "not slow enough to tell anything"
        assert got + read_to_end(client) == BODY, "the tail was cut off"
        assert 0 == server.stats().send_timeouts


@pytest.mark.needs("SEND_ZC")
def test_what_drains_is_told() -> None:
    """draining_sends_now counts a closed connection whose memory the kernel still reads."""
    with (
        serve(answer, zero_copy_send=True) as server,
        connect(server, rcvbuf=NARROW) as client,
    ):
        client.sendall(b"x")
        until(lambda: server.stats().draining_sends_now == 1, "a connection that drains")
        assert BODY == read_to_end(client)
        until(lambda: server.stats().draining_sends_now == 0, "nothing drains")
        stats = server.stats()
        # The loopback always copies; a kernel that cannot tell (before 6.2) has refused the flag.
        assert stats.zc_copied == (0 if stats.zc_fallbacks else stats.zc_notifs)
