# SPDX-License-Identifier: MIT
"""QEMU's life and death: it never outlives the run, and its end is told in words."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import arch
from lab.errors import LabError
from lab.vm import monitor, qemu
from lab.vm.devices import Monitor

pytestmark = pytest.mark.lab

SOON_MS = 20_000
IDLE = (arch.here().qemu, "-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "16M")
"""The command of a machine whose processor never starts."""

RUNNER = f"""
import sys, time
from pathlib import Path
from lab.vm import qemu
with qemu.running({IDLE!r}, log=Path(sys.argv[1])) as machine:
    print(machine.pid, flush=True)
    sys.stdin.read()
"""


def gone(pidfd: int) -> bool:
    """Whether the process behind a pidfd ends soon."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(SOON_MS))


def with_monitor(end: socket.socket) -> tuple[str, ...]:
    """The idle machine's command, with QMP on a socket."""
    return (*IDLE, *Monitor(end.fileno()).arguments())


def open_files() -> set[str]:
    """What this process holds open, without the directory it reads to know."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue
    return found


def test_leaving_the_block_ends_qemu_and_closes_everything(tmp_path: Path) -> None:
    """After the block no process and no descriptor is left, by return or by exception."""
    with qemu.running(IDLE, log=tmp_path / "first.log"):
        pass  # whatever Python opens once is open now
    before = open_files()
    with qemu.running(IDLE, log=tmp_path / "log") as machine:
        pidfd = os.pidfd_open(machine.pid)
        assert not machine.ended()
    assert gone(pidfd)
    os.close(pidfd)
    pidfds: list[int] = []

    def fail() -> None:
        with qemu.running(IDLE, log=tmp_path / "log") as machine:
            pidfds.append(os.pidfd_open(machine.pid))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gone(pidfds[0])
    os.close(pidfds[0])
    assert open_files() == before


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_qemu_dies_with_its_runner(tmp_path: Path, death: signal.Signals) -> None:
    """kill -9, Ctrl-C or a TERM of the runner: no QEMU is left."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as runner:
        assert runner.stdout is not None
        pidfd = os.pidfd_open(int(runner.stdout.readline()))
        runner.send_signal(death)
        assert gone(pidfd)
        os.close(pidfd)


def test_qemu_dies_with_the_thread_that_started_it(tmp_path: Path) -> None:
    """The kernel ties QEMU to the starting thread; this is why boot() says so."""
    ours, theirs = socket.socketpair()
    pidfds: list[int] = []
    with ours, theirs, ExitStack() as stack:

        def start_and_leave() -> None:
            arguments = with_monitor(theirs)
            context = qemu.running(arguments, log=tmp_path / "log", inherit=(theirs,))
            pidfds.append(os.pidfd_open(stack.enter_context(context).pid))
            ours.recv(1)  # its greeting: it is QEMU by now, and no longer on the way to it

        thread = threading.Thread(target=start_and_leave)
        thread.start()
        thread.join()
        assert gone(pidfds[0])
        os.close(pidfds[0])


def test_a_runner_that_died_too_early_starts_no_qemu(tmp_path: Path) -> None:
    """A QEMU whose parent is not the runner any more does not even start."""
    done = subprocess.run(
        ["sh", "-c", qemu._UNDERTAKER, "sh", "1", "touch", str(tmp_path / "started")],
        check=False,
    )
    assert 3 == done.returncode
    assert not (tmp_path / "started").exists()


def test_an_end_is_told_in_words(tmp_path: Path) -> None:
    """A QEMU that refuses its arguments, or is killed, is quoted."""
    with qemu.running((arch.here().qemu, "-machine", "nonsense"), log=tmp_path / "log") as machine:
        assert machine.ended(SOON_MS / 1000)
        assert "unsupported machine type" in machine.how_it_ended()
        assert machine.how_it_ended().startswith("QEMU ended with status 1: ")
    with qemu.running(IDLE, log=tmp_path / "log") as machine:
        os.kill(machine.pid, signal.SIGSEGV)
        assert machine.ended(SOON_MS / 1000)
        assert machine.how_it_ended().startswith("QEMU ended by SIGSEGV")


def test_the_command_line_is_kept(tmp_path: Path) -> None:
    """The log begins with a line that starts the same machine by hand."""
    with qemu.running(IDLE, log=tmp_path / "log"):
        pass
    first = (tmp_path / "log").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(" ".join(IDLE))


def test_a_silent_machine_can_be_described(tmp_path: Path) -> None:
    """QMP tells the state and the registers; a machine that is gone is told as that."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with qemu.running(with_monitor(theirs), log=tmp_path / "log", inherit=(theirs,)):
            asked = monitor.Monitor(ours)
            first, again = asked.describe(times=3, apart_s=0.05), asked.describe()
    for standing, times in ((first, 3), (again, 1)):
        assert "'status': 'prelaunch'" in standing.text
        assert "IP=0000fff0" in standing.text
        assert standing.places == [[0xFFF0]] * times
        assert standing.stuck
    assert str(again) == "the processor stands at 0xfff0"
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        silent = monitor.Monitor(ours).describe()
    assert "QEMU did not tell" in silent.text
    assert not silent.stuck


def test_a_version_that_is_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of QEMU's name that is not QEMU is not trusted with a guess."""
    fake = tmp_path / arch.here().qemu
    fake.write_text("#!/bin/sh\necho hello\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    qemu.version.cache_clear()
    with pytest.raises(LabError, match="names no version"):
        qemu.version()
    qemu.version.cache_clear()
