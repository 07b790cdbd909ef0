# SPDX-License-Identifier: MIT
"""``python -m ioxide serve``: the command line of a server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import TIMEOUT, read_to_end

ROOT = Path(__file__).parents[2]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "ioxide", "serve", *args]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal(number: signal.Signals) -> None:
    """The example answers an HTTP client, and a signal stops it gracefully with status 0."""
    with subprocess.Popen(
        command("examples.hello:handler", "--port", "0", "--ring-entries", "64"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on 127.0.0.1 port ")
        with socket.create_connection(("127.0.0.1", int(line.split()[-1])), TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"
            assert answer * 2 == read_to_end(client)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (0, "") == (process.returncode, errors)


@pytest.mark.parametrize(
    ("args", "status", "sentence"),
    [
        (("examples.hello",), 2, "'examples.hello' is not MODULE:HANDLER"),
        (("no_such_module:x",), 2, "module 'no_such_module' cannot be imported"),
        (("examples.hello:nothing",), 2, "has no function 'nothing'"),
        (("examples.hello:handler", "--port", "65536"), 2, "port=65536: must be an integer"),
        (("examples.hello:handler", "--recv-slots", "3"), 2, "recv_slots=3: must be a power"),
        (("examples.hello:handler", "--host", "192.0.2.1"), 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_bad_arguments_are_a_sentence(args: tuple[str, ...], status: int, sentence: str) -> None:
    """Wrong usage ends with a sentence that names the value, not with a traceback."""
    done = subprocess.run(
        command(*args), cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert status == done.returncode
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_too_little_lockable_memory_is_a_sentence() -> None:
    """An ordinary user with 64 KiB of RLIMIT_MEMLOCK is told what to raise."""
    script = (
        "import os, resource, sys\n"
        "import ioxide\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "if os.geteuid() == 0:\n"  # root may lock as much as it likes
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        "try:\n"
        "    ioxide.Driver(ioxide.ServerConfig())\n"
        "except ioxide.RingError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert 1 == done.returncode
    assert "RLIMIT_MEMLOCK" in done.stderr
    assert "1024 submission and 8192 completion entries" in done.stderr
