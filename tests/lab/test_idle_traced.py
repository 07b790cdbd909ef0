# SPDX-License-Identifier: MIT
"""Issue #99 as strace(1) sees it: an idle reactor's thread makes no system call.

It is here and not among the reactor's tests because a guest has no strace; in guests
`test_issue_099_idle_is_silent.py` watches enters and switches instead.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import TIMEOUT, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

_SERVER = """
import sys, time
import ioxide
from tests.support import SMALL, echo

with ioxide.Server(echo, SMALL) as server:
    print(server.port, server.reactors[0].native_id, flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
print(time.monotonic() - begun, flush=True)
"""


def _switches(pid: int, thread: int) -> int:
    lines = Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def _answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(b"x")
        assert b"x" == client.recv(1)


def test_ten_idle_seconds_under_strace(tmp_path: Path) -> None:
    """Ten seconds without a call of the reactor's thread; then an answer, and a prompt end."""
    log = tmp_path / "calls"
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port, thread = map(int, server.stdout.readline().split())
    strace = subprocess.Popen(["strace", "-f", "-o", log, "-p", str(server.pid)])
    try:
        # A call of the thread proves that it is traced.
        until(lambda: log.exists() and _traced(log, thread, port), "the thread's calls traced")
        time.sleep(0.5)  # the connection's own end
        seen, slept = log.read_text(), _switches(server.pid, thread)
        time.sleep(10)  # what is measured is this silence
        assert slept == _switches(server.pid, thread)
        said = log.read_text()[len(seen) :].splitlines()
        assert [] == [line for line in said if line.startswith(f"{thread} ")]
        _answered(port)
        until(lambda: len(log.read_text()) > len(seen), "the answer's calls traced")
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(TIMEOUT)
    took = server.communicate("stop\n", timeout=TIMEOUT)[0]
    assert 0 == server.returncode
    assert float(took) < 1.0


def _traced(log: Path, thread: int, port: int) -> bool:
    _answered(port)
    return any(
        line.startswith(f"{thread} ") and "io_uring_enter" in line
        for line in log.read_text().splitlines()
    )
