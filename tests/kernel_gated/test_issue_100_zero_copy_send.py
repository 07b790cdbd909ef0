# SPDX-License-Identifier: MIT
"""Issue #100: SEND_ZC is used if and only if asked for, in every way to receive.

SEND_ZC (6.0) completes twice: with the result, and with a notification that the kernel let go of
the memory; on loopback the latter always tells of a copy (REPORT_USAGE, 6.2).
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kernel_gated.modes import MODES, SENDS, Changes
from tests.support import (
    TIMEOUT,
    Whole,
    connect,
    echo,
    noise,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(100)]


MIB = 1 << 20


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("mode", MODES)
def test_bytes_come_back_whole(mode: Changes, send: Changes) -> None:
    """Two MiB in pieces of 1 byte to 64 KiB come back equal, however they are received and sent."""
    draw = random.Random(100)
    sent = noise(2 * MIB, seed=100)

    def pieces() -> None:
        rest = memoryview(sent)
        while rest:
            size = draw.choice((1, 7, 500, 4096, 65536))
            client.sendall(rest[:size])
            rest = rest[size:]
        client.shutdown(socket.SHUT_WR)

    with serve(echo, **mode, **send) as server, connect(server) as client:
        sender = threading.Thread(target=pieces)
        sender.start()
        received = read_to_end(client)
        sender.join()
        stats = server.stats()
    assert Whole(sent) == Whole(received)
    assert bool(send) == (stats.sends_zc + stats.zc_fallbacks > 0)
    assert 0 == stats.unknown_cqes
    until(lambda: server.stats().buffers_held_now == 0, "every buffer back")


@pytest.mark.needs("SEND_ZC")
@pytest.mark.parametrize("mode", MODES)
def test_zero_copy_send_in_every_mode(mode: Changes) -> None:
    """With zero_copy_send answers leave by SEND_ZC, each with its notification, in every mode."""
    body = random.Random(1).randbytes(65536)
    with serve(echo, **mode, zero_copy_send=True) as server, connect(server) as client:
        answers = []
        for _ in range(3):
            client.sendall(body)
            answers.append(read_exactly(client, len(body)))
        # What is written while a notification is due is copied: so at least one, not all three.
        until(lambda: server.stats().sends_zc >= 1, "a SEND_ZC")
        until(lambda: server.stats().zc_notifs == server.stats().sends_zc, "all notifications")
        assert [body] * 3 == answers


ORDINARY_USER = """
import encodings.idna, os, resource, socket  # all before the user changes
import ioxide
from tests.support import connect, read_to_end, serve

async def handler(conn):
    # bytes would be held and leave by SENDMSG_ZC, of which 6.12.117 counts no memory as pinned.
    conn.write(bytearray(12 << 20))

resource.setrlimit(resource.RLIMIT_MEMLOCK, (4 << 20, 4 << 20))
if os.geteuid() == 0:  # root may pin as much as it likes
    os.setgid(65534)
    os.setuid(65534)
with serve(handler, zero_copy_send=True) as server, connect(server) as client:
    print(len(read_to_end(client)), server.stats().zc_fallbacks)
"""


@pytest.mark.needs("SEND_ZC")
def test_zero_copy_send_beyond_the_memlock_limit_is_copied() -> None:
    """An ordinary user's answer that is larger than may be pinned is sent as a copy, whole."""
    done = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ("", f"{12 << 20} 1\n", 0) == (done.stderr, done.stdout, done.returncode)
