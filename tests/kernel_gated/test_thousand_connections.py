# SPDX-License-Identifier: MIT
"""A thousand connections at once, a mebibyte from each, in every way to receive."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ioxide
from tests.kernel_gated.modes import Changes
from tests.support import serve, until

pytestmark = [pytest.mark.kernel_gated, pytest.mark.slow, pytest.mark.timeout(1200)]

COUNT, PROCESSES = 1000, 2
MIB = 1 << 20
OWN = ioxide.IncrementalConfig(max_connections=COUNT, recv_slots=4, recv_buffer_size=4096)
MODES = [
    pytest.param({}, id="shared"),
    pytest.param({"recv_bundle": True}, id="bundle", marks=pytest.mark.needs("BUNDLE")),
    pytest.param({"incremental": OWN}, id="incremental", marks=pytest.mark.needs("INC")),
]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for the server's side of all of them; the clients are processes of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT + 500
    most = max(soft, wanted) if hard == resource.RLIM_INFINITY else min(max(soft, wanted), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("mode", MODES)
def test_every_byte_of_a_thousand_connections(mode: Changes) -> None:
    """A thousand mebibytes, sent in pieces of 1 byte to 64 KiB, all arrive and hash equal."""

    async def handler(conn: ioxide.Connection) -> None:
        digest = hashlib.sha256()
        while data := await conn.recv():
            digest.update(data)
            await asyncio.sleep(0)
        conn.write(digest.digest())

    # No read clock: in a slow guest a connection waits for more than 60 s until its turn comes.
    changes: Changes = {"recv_slots": 256, "cq_entries": 4096, "read_timeout_ms": 0, **mode}
    with serve(handler, **changes) as server:
        senders = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).parents[1] / "smoke/many_senders.py"),
                    *map(str, (server.port, COUNT // PROCESSES, number)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]
        try:
            for sender in senders:
                assert sender.stdout is not None
                assert "ready\n" == sender.stdout.readline()
            until(lambda: server.stats().connections_now == COUNT, "all of them at once")
            for sender in senders:
                assert sender.stdin is not None
                sender.stdin.write("go\n")
                sender.stdin.flush()
            told = [sender.communicate(timeout=1100)[0] for sender in senders]
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
        until(lambda: server.stats().connections_now == 0, "all ended")
        stats = server.stats()
    assert [f"{COUNT // PROCESSES}\n"] * PROCESSES == told
    assert (COUNT, 0) == (stats.accepts, stats.aborts)
    assert COUNT * MIB == stats.bytes_received
    assert (0, 0) == (stats.buffers_held_now, stats.unknown_cqes)
