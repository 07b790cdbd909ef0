# SPDX-License-Identifier: MIT
"""Memory follows the load: buffers and slabs that nobody uses any more go back to the system."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import ioxide
from tests.support import (
    MIB,
    TIMEOUT,
    at_rest,
    connect,
    echo,
    noise,
    on_reactor,
    read_exactly,
    serve,
    until,
    wait_unread,
)


def _resident() -> float:
    """MiB of this process's own memory that are there (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


_LOOPS_OF_AN_ORDINARY_USER = """
import os, resource, sys
import ioxide
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
loops = []
try:
    while len(loops) < int(sys.argv[1]):
        loops.append(ioxide.new_event_loop())
except ioxide.RingError as error:
    print(error, file=sys.stderr)
print(len(loops))
for loop in loops:
    loop.close()
"""


def test_an_ordinary_user_has_many_loops() -> None:
    """8 MiB of locked memory (RLIMIT_MEMLOCK) are enough for 64 loops with the defaults.

    From 6.13 on rings are charged to it (io_uring/memmap.c, io_create_region()), 132 KiB at most
    then for each of these; before, only the memory cgroup is.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _LOOPS_OF_AN_ORDINARY_USER, "64"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ("64", "") == (ran.stdout.strip(), ran.stderr.strip())


DEFAULTS = ioxide.ServerConfig(port=0)
SIZES = {"recv_slots": DEFAULTS.recv_slots, "recv_buffer_size": DEFAULTS.recv_buffer_size}


def test_one_connection_uses_few_buffers() -> None:
    """1,000 buffers full of bytes, received one after the other, use the memory of a few."""
    message = noise(64 * 1024, seed=11)
    with serve(echo, **SIZES) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        before = _resident()
        for _ in range(500):
            client.sendall(message)
            assert message == read_exactly(client, len(message))
        assert _resident() - before < 16, "one connection used the memory of many"


def test_memory_follows_the_load_and_goes_back() -> None:
    """A batch of many connections has buffers for all; a moment later their pages go back."""
    message = noise(24 * 1024, seed=12)
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        while data := await conn.recv():
            conn.write(data)
            del data  # 400 of them would be as much as what is measured

    with serve(handler, **SIZES) as server, ExitStack() as stack:
        reactor = server.reactors[0]
        clients = [stack.enter_context(connect(server)) for _ in range(400)]
        until(lambda: len(conns) == 400, "every handler")
        until(lambda: at_rest(server), "a reactor at rest")
        before = _resident()

        def block() -> None:
            for client in clients:
                client.sendall(message)
            for conn in conns:
                wait_unread(conn.fileno(), len(message))

        rearms: list[int] = []
        # A slow machine may take longer for a round than the window stays grown without load.
        while len(rearms) < 3 or (rearms[-2] != rearms[-1] and len(rearms) < 12):
            on_reactor(reactor, block)
            for client in clients:
                assert message == read_exactly(client, len(message))
            rearms.append(server.stats().recv_rearms)
        assert rearms[-2] == rearms[-1], f"the window did not grow with the load: {rearms}"
        assert 0 == server.stats().recv_enobufs, "buffers ran short while most were at rest"
        until(lambda: _resident() - before < 5, "the memory given back")

        def silent() -> bool:
            enters = server.stats().enters
            threading.Event().wait(1.2)
            return enters == server.stats().enters

        until(silent, "a reactor that sleeps, since nothing is left to give back")
        # What was given back is there again when it is needed.
        on_reactor(reactor, block)
        for client in clients:
            assert message == read_exactly(client, len(message))


def test_grown_slabs_are_given_back_while_their_connection_lives() -> None:
    """A large answer's slab does not rest for as long as the connection is open."""

    async def handler(conn: ioxide.Connection) -> None:
        while await conn.recv():
            conn.write(bytearray(4 * MIB))

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"?")
        assert 4 * MIB == len(read_exactly(client, 4 * MIB))
        until(lambda: server.stats().slab_bytes_now <= MIB, "grown slabs given back")
        assert 1 == server.stats().connections_now
