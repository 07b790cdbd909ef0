# SPDX-License-Identifier: MIT
"""``python -m ioxide serve``: the command line of a server, and what it says when it cannot."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ioxide
from ioxide.__main__ import main
from ioxide._driver.opening import ring_error
from tests.support import SMALL, TIMEOUT, read_exactly, until

ROOT = Path(__file__).parents[2]


@contextmanager
def _served(handler: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The command line's process, and a client of its server."""
    with subprocess.Popen(
        [sys.executable, "-m", "ioxide", "serve", handler, "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving on 127.0.0.1 port ")
            with socket.create_connection(("127.0.0.1", int(line.split()[-1])), TIMEOUT) as client:
                yield process, client
        finally:
            process.kill()  # nothing where it has ended


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and complaints of a process that was told to end."""
    try:
        _, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise AssertionError("the main thread sleeps on") from None
    return process.returncode, errors


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_serves_until_a_signal(number: signal.Signals) -> None:
    """It serves with the handler that is named, and a signal stops it gracefully with status 0."""
    with _served("tests.support:echo") as (process, client):
        client.sendall(b"over the wire")
        assert b"over the wire" == read_exactly(client, 13)
        process.send_signal(number)
        assert (0, "") == _ended(process)
        assert b"" == client.recv(1)


def _quiet(process: subprocess.Popen[str]) -> bool:
    """Whether the main thread slept through a second."""
    status = Path(f"/proc/{process.pid}/task/{process.pid}/status")

    def slept() -> list[str]:
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    before = slept()
    time.sleep(1)  # what is watched is this second
    return before == slept()


@pytest.mark.slow
def test_main_thread_sleeps_until_another_one_is_told() -> None:
    """It is not woken before there is a reason, and a signal that the kernel gives to another
    thread is one."""
    with _served("tests.support:echo") as (process, client):
        client.sendall(b"x")
        assert b"x" == client.recv(1)
        until(lambda: _quiet(process), "a second in which the main thread sleeps")
        threads = {int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()}
        other = min(threads - {process.pid})
        libc = ctypes.CDLL(None, use_errno=True)  # tgkill(2) has a function from glibc 2.30 on
        assert 0 == libc.tgkill(process.pid, other, signal.SIGTERM), ctypes.get_errno()
        assert (0, "") == _ended(process)


@pytest.mark.slow
def test_serves_until_a_reactor_ends() -> None:
    """A reactor that ends by itself ends the server, with status 1 and a sentence about why."""
    with _served("tests.smoke.leaving:leave") as (process, client):
        until(lambda: _quiet(process), "a second in which the main thread sleeps")
        client.sendall(b"x")
        status, errors = _ended(process)
    assert 1 == status
    assert "ended by SystemExit(7)" in errors


def test_every_setting_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, switches and choices of the configuration come from the command line."""
    told: list[ioxide.ServerConfig] = []

    class Refused(Exception):
        pass

    def server(_: object, config: ioxide.ServerConfig) -> None:
        told.append(config)
        raise Refused

    monkeypatch.setattr("ioxide._commands.serve.Server", server)
    options = ["--port", "0", "--max-connections", "9", "--no-context", "--zero-copy-send"]
    options += ["--continuation-mode", "pool_coalesced", "--write-overflow", "segmented"]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        for arguments in ([], options):
            with pytest.raises(Refused):
                main(["serve", "tests.support:echo", *arguments])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    wanted = ioxide.ServerConfig(
        port=0,
        max_connections=9,
        context=False,
        zero_copy_send=True,
        continuation_mode=ioxide.ContinuationMode.POOL_COALESCED,
        write_overflow=ioxide.WriteOverflow.SEGMENTED,
    )
    assert [ioxide.ServerConfig(), wanted] == told


@pytest.mark.parametrize(
    ("args", "status", "sentence"),
    [
        (("tests.support",), 2, "'tests.support' is not MODULE:HANDLER"),
        (("no_such_module:x",), 2, "module 'no_such_module' cannot be imported"),
        (("tests.support:nothing",), 2, "has no function 'nothing'"),
        (("tests.support:echo", "--port", "65536"), 2, "port=65536: must be an integer"),
        (("tests.support:echo", "--recv-slots", "3"), 2, "recv_slots=3: must be a power"),
        (("tests.support:echo", "--pool-threads", "0"), 2, "pool_threads=0: must be"),
        (("tests.support:echo", "--host", "192.0.2.1"), 1, "cannot listen on 192.0.2.1 port 8080"),
    ],
)
def test_bad_arguments_are_a_sentence(
    args: tuple[str, ...], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage ends with one sentence that names the value."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert status == main(["serve", *args])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    errors = capsys.readouterr().err
    assert sentence in errors
    assert 1 == len(errors.splitlines())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOMEM, ("RLIMIT_MEMLOCK", "ring_entries=64", "cq_entries=1024")),
        (errno.EINVAL, ("DEFER_TASKRUN", "6.1")),
        (errno.EMFILE, ("file descriptor", "ulimit -n")),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_a_refused_ring_is_a_sentence(code: int, words: tuple[str, ...]) -> None:
    """What the kernel refuses is told with the values and the way out."""
    error = ring_error(code, SMALL, "io_uring_setup failed")
    assert code == error.errno
    assert os.strerror(code) != error.strerror
    for word in words:
        assert word in str(error)
