# SPDX-License-Identifier: MIT
"""The agent that runs in guests, here as a process of the host: no QEMU is needed to test it."""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.errors import GuestLost, LabError
from lab.kernels import Kernel
from lab.vm import Control, Exited, Guest, Output, Process, Stream
from lab.vm.channel import Channel
from lab.vm.console import Console
from lab.vm.link import Link
from lab.vm.processor import Accel, AccelKind

from .suite_support import REPOSITORY

pytestmark = pytest.mark.lab

SOON = 20.0
START = str(REPOSITORY / "lab/vm/inguest/start.py")
KERNEL = Kernel("0.0", "0.0.0", "0", "test", "none", locked=False, verified_by="nobody")


@dataclass
class Local:
    """A Guest whose agent is a child of this process."""

    guest: Guest
    agent: subprocess.Popen[bytes]


_IMPATIENT = """
import runpy, sys
sys.path.insert(0, sys.argv[1].rpartition("/")[0].rpartition("/")[0])
import inguest.children
inguest.children.Children.GRACE_S = 0.0
runpy.run_path(sys.argv.pop(1))
"""


@contextmanager
def local_guest(tmp_path: Path, *, patient: bool = True) -> Iterator[Local]:
    """Start the real agent on one end of a socket pair."""
    how = () if patient else ("-c", _IMPATIENT)
    console = tmp_path / "console.log"
    console.touch()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", *how, START, "--fd", str(theirs.fileno()), "n0nce"],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        try:
            link = Link(Channel(ours), GuestLost)
            hello = link.hello(deadline=time.monotonic() + SOON, within_s=SOON)
            assert ("n0nce", os.uname().release) == (hello["nonce"], hello["release"])
            yield Local(
                Guest(
                    kernel=KERNEL,
                    accel=Accel(AccelKind.TCG, "", "", ""),
                    nonce="n0nce",
                    uname=hello["release"],
                    boot_seconds=0.0,
                    slowdown=1.0,
                    memlock=hello["memlock"],
                    console=Console(console),
                    link=link,
                ),
                process,
            )
        finally:
            ours.close()
            assert process.wait(SOON) == 0 or process.returncode < 0


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """One such guest for a test."""
    with local_guest(tmp_path) as made:
        yield made


def all_of(process: Process) -> tuple[list[object], bytes, int]:
    """Every control object, the standard output and the status of a process, to its end."""
    controls: list[object] = []
    output = b""
    while True:
        match process.receive(SOON):
            case Control(obj):
                controls.append(obj)
            case Output(Stream.STDOUT, data):
                output += data
            case Exited(status):
                return controls, output, status
            case _:
                pass


def test_status_and_streams_come_back_apart(local: Local) -> None:
    """A command's status, output and errors arrive whole and unmixed."""
    done = local.guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=SOON)
    assert (7, b"out\n", b"err\n") == (done.status, done.stdout, done.stderr)


def test_a_signal_is_told_from_a_status(local: Local) -> None:
    """A command killed by a signal has minus that signal as its status."""
    done = local.guest.run(["sh", "-c", "kill -SEGV $$"], timeout_s=SOON)
    assert -signal.SIGSEGV == done.status


def test_input_environment_and_directory_reach_the_command(local: Local, tmp_path: Path) -> None:
    """What the caller gives is what the command gets; megabytes of input do not lock up."""
    text = b"0123456789abcdef" * 200_000
    done = local.guest.run(["cat"], timeout_s=SOON, input=text)
    assert text == done.stdout
    done = local.guest.run(
        ["sh", "-c", 'echo "$A $PWD"'], env={"A": "b"}, cwd=str(tmp_path), timeout_s=SOON
    )
    assert f"b {tmp_path}\n".encode() == done.stdout


def test_a_command_that_does_not_read_its_input_still_ends(local: Local) -> None:
    """Input nobody reads is dropped when its reader ends."""
    done = local.guest.run(["true"], timeout_s=SOON, input=b"x" * 1_000_000)
    assert 0 == done.status


def test_a_command_that_does_not_exist_is_an_error_with_its_name(local: Local) -> None:
    """What cannot be started is an error of the lab, not a status; the guest lives on."""
    with pytest.raises(LabError, match="no-such-command"):
        local.guest.run(["no-such-command"], timeout_s=SOON)
    assert 0 == local.guest.run(["true"], timeout_s=SOON).status


def test_a_command_line_too_long_for_a_frame_is_refused(local: Local) -> None:
    """A request that does not fit is an error, and the next one is served."""
    with pytest.raises(LabError, match="spawn is too much for one request"):
        local.guest.run(["true", "x" * 2_000_000], timeout_s=SOON)
    assert 0 == local.guest.run(["true"], timeout_s=SOON).status


def test_a_command_that_takes_too_long_is_killed(local: Local, tmp_path: Path) -> None:
    """After a TimeoutError the command and what it started are dead, and its words are told."""
    pids = tmp_path / "pids"
    script = f"echo so far; sleep 600 & echo $! $$ > {pids}; sleep 600"
    with pytest.raises(TimeoutError, match="so far"):
        local.guest.run(["sh", "-c", script], timeout_s=1.0)
    for pid in pids.read_text().split():
        assert ends(int(pid))


def ends(pid: int) -> bool:
    """Whether a process has ended or does so soon; one that waits to be fetched has."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = bool(poll.poll(SOON * 1000))
    os.close(pidfd)
    return ended


def test_a_command_that_never_stops_writing_is_stopped(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output has an end, and the guest is still good after it."""
    monkeypatch.setattr("lab.vm.guest._MOST_OUTPUT", 1_000_000)
    with pytest.raises(LabError, match="yes wrote more than 1000000 bytes"):
        local.guest.run(["yes"], timeout_s=SOON)
    assert 0 == local.guest.run(["true"], timeout_s=SOON).status


def test_control_lines_go_both_ways(local: Local) -> None:
    """A process and the host talk in JSON lines, whatever else the process prints."""
    code = (
        "import json, os, socket\n"
        "control = socket.socket(fileno=int(os.environ['LAB_CONTROL_FD']))\n"
        "for line in control.makefile('rb'):\n"
        "    asked = json.loads(line)\n"
        "    print('noise', flush=True)\n"
        "    control.sendall(json.dumps({'twice': 2 * asked['n']}).encode() + b'\\n')\n"
        "    if asked['n'] == 3: os._exit(5)\n"
    )
    process = local.guest.spawn([sys.executable, "-c", code])
    for number in (1, 2, 3):
        process.send({"n": number})
    assert ([{"twice": 2}, {"twice": 4}, {"twice": 6}], b"noise\n" * 3, 5) == all_of(process)


def test_long_control_lines_arrive_whole(local: Local) -> None:
    """A report of several megabytes is one object again on the other side."""
    code = (
        "import json, os, socket\n"
        "control = socket.socket(fileno=int(os.environ['LAB_CONTROL_FD']))\n"
        "line = control.makefile('rb').readline()\n"
        "control.sendall(line)\n"
    )
    process = local.guest.spawn([sys.executable, "-c", code])
    big = {"text": "é" * 1_500_000}
    process.send(big)
    assert ([big], b"", 0) == all_of(process)


def test_two_processes_are_kept_apart(local: Local) -> None:
    """Events of one process wait while another is listened to."""
    first = local.guest.spawn(["sh", "-c", "echo one; exit 1"])
    second = local.guest.spawn(["sh", "-c", "echo two; exit 2"])
    assert ([], b"two\n", 2) == all_of(second)
    assert ([], b"one\n", 1) == all_of(first)


def test_a_signal_reaches_the_process(local: Local) -> None:
    """kill(SIGTERM) ends a process that does not mind, and says how it ended."""
    process = local.guest.spawn(["sleep", "600"])
    process.kill(signal.SIGTERM)
    assert -signal.SIGTERM == all_of(process)[2]
    process.kill()  # it has ended: nothing happens


def test_waiting_for_a_quiet_process_ends(local: Local) -> None:
    """receive gives up when its time is over and can be asked again."""
    process = local.guest.spawn(["sleep", "600"])
    with pytest.raises(TimeoutError):
        process.receive(0.05)
    process.kill()
    assert -signal.SIGKILL == all_of(process)[2]
    with pytest.raises(LabError, match="has ended"):
        process.receive(0.05)


def test_a_control_line_that_is_no_object_loses_the_guest(local: Local) -> None:
    """Nonsense on the control socket is never read as a verdict."""
    process = local.guest.spawn(["sh", "-c", 'eval "echo passed >&$LAB_CONTROL_FD"; sleep 60'])
    with pytest.raises(GuestLost, match="no JSON object: b'passed'"):
        process.receive(SOON)
    with pytest.raises(GuestLost, match="no JSON object"):
        local.guest.ping()


def test_a_tree_arrives_with_modes_links_and_long_names(local: Local, tmp_path: Path) -> None:
    """A pushed tar is on the other side what it was on this one."""
    name = "directory/" + "n" * 150
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        file = tarfile.TarInfo(name)
        file.mode, file.size = 0o755, 700_000
        archive.addfile(file, io.BytesIO(os.urandom(700_000)))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, name
        archive.addfile(link)
    target = tmp_path / "new" / "place"
    local.guest.push_tree(packed.getvalue(), str(target))
    assert 700_000 == (target / "link").stat().st_size
    assert 0o755 == (target / name).stat().st_mode & 0o777


def test_what_is_no_tar_is_refused(local: Local, tmp_path: Path) -> None:
    """Broken bytes are an error that says so; the next tar is taken."""
    with pytest.raises(LabError, match=r"tar ended with status [12]: tar: "):
        local.guest.push_tree(b"not a tar" * 1000, str(tmp_path))
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    local.guest.push_tree(empty.getvalue(), str(tmp_path / "fine"))
    assert (tmp_path / "fine").is_dir()


def test_a_killed_agent_is_a_lost_guest(local: Local) -> None:
    """When the agent dies, so does every conversation through it, at once and with a reason."""
    # It ends with its control socket: nobody else is left to end it.
    process = local.guest.spawn(["sh", "-c", 'eval "read line <&$LAB_CONTROL_FD"'])
    local.agent.kill()
    with pytest.raises(GuestLost, match="the agent is gone"):
        process.receive(SOON)
    with pytest.raises(GuestLost, match="the agent is gone"):
        process.kill()


def test_an_agent_without_a_host_ends_and_takes_its_children(tmp_path: Path) -> None:
    """A runner that is gone leaves no agent behind."""
    with local_guest(tmp_path) as made:
        process = made.guest.spawn(["sh", "-c", "sleep 600 & echo $! $$; wait"])
        event = process.receive(SOON)
        assert isinstance(event, Output)
    assert 0 == made.agent.returncode
    for pid in event.data.split():
        assert ends(int(pid))


def test_a_stopped_agent_is_silence_with_a_time(local: Local) -> None:
    """An agent that does not answer loses the guest after the time given, not later."""
    local.agent.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(GuestLost, match=r"did not answer ping within 0\.2 s"):
            local.guest.ping(timeout_s=0.2)
    finally:
        local.agent.send_signal(signal.SIGCONT)


def test_a_process_can_have_a_terminal(tmp_path: Path) -> None:
    """With a window all three streams are a terminal of that size, a later size is told, and what
    is typed is echoed and obeyed: Ctrl-D ends the input."""
    code = (
        "import os, sys; print(os.get_terminal_size(0), os.isatty(1), os.isatty(2), flush=True)\n"
        "sys.stdin.readline(); print(os.get_terminal_size(0), repr(sys.stdin.read()))"
    )
    with local_guest(tmp_path) as local:
        process = local.guest.spawn([sys.executable, "-c", code], window=(33, 99))
        seen = b""
        while b"\n" not in seen:
            event = process.receive(SOON)
            assert isinstance(event, Output)
            seen += event.data
        assert b"os.terminal_size(columns=99, lines=33) True True\r\n" == seen
        process.resize((20, 50))
        process.write(b"go\n\x04")
        seen = b""
        while not isinstance(event := process.receive(SOON), Exited):
            assert isinstance(event, Output)
            seen += event.data
        assert 0 == event.status
        assert b"os.terminal_size(columns=50, lines=20) ''\r\n" in seen


def test_last_words_are_read_however_late(tmp_path: Path) -> None:
    """What a process had written when it ended arrives whole, also where the time after its end is
    over before the agent has read it, as when the host was busy."""
    size, go = 1 << 20, tmp_path / "go"
    os.mkfifo(go)
    code = (
        "import fcntl, os\n"
        "fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)\n"
        "os.write(2, b'%d' % os.getpid())\n"
        f"open({str(go)!r}).close()\n"
        f"os.write(1, b'x' * {size})\n"
    )
    with local_guest(tmp_path, patient=False) as local:
        process = local.guest.spawn([sys.executable, "-c", code])
        told = process.receive(SOON)
        assert isinstance(told, Output)
        ended = os.pidfd_open(int(told.data))
        local.agent.send_signal(signal.SIGSTOP)
        try:
            go.open("w").close()
            assert select.select([ended], [], [], SOON)[0], "the process wrote all and ended"
        finally:
            local.agent.send_signal(signal.SIGCONT)
            os.close(ended)
        assert ([], b"x" * size, 0) == all_of(process)


def test_input_nobody_reads_is_counted(tmp_path: Path) -> None:
    """`write` says how much waits in the guest, and 0 once the process is gone."""
    with local_guest(tmp_path) as local:
        process = local.guest.spawn(["sleep", "1000"], stdin=True)
        pipe = 65536
        assert 2_000_000 - pipe == process.write(bytes(2_000_000))
        process.kill()
        assert Exited(-signal.SIGKILL) == process.receive(SOON)
        assert 0 == process.write(b"more")
