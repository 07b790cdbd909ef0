# SPDX-License-Identifier: MIT
"""`lab run` and `lab shell`: the command's own streams and status, 125 for the lab's failures."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import kernels
from lab.commands import booting
from lab.errors import UsageError

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
KERNEL = "6.12"
SOON = 120.0


def lab(*arguments: str | Path, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `python -m lab` with a pipe at each end."""
    return subprocess.run(
        [sys.executable, "-m", "lab", *map(str, arguments)],
        cwd=ROOT,
        input=input,
        capture_output=True,
        check=False,
        timeout=SOON,
    )


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m lab`, running; killed at the end of the block if it still does."""
    with subprocess.Popen(
        [sys.executable, "-m", "lab", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def last_line(text: bytes) -> str:
    """The last line of what was written to standard error."""
    return text.decode().splitlines()[-1]


def qemus_of(pid: int) -> list[int]:
    """The emulators below a process, by their parents."""
    found, parents = [], {pid}
    rows = [
        (int(p.name), int((p / "stat").read_text().rsplit(")", 1)[1].split()[1]), p)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and (p / "stat").exists()
    ]
    for _ in range(8):
        for child, parent, path in rows:
            if parent in parents and child not in parents:
                parents.add(child)
                if b"qemu-system" in (path / "cmdline").read_bytes().split(b"\0")[0]:
                    found.append(child)
    return found


def test_a_program_has_its_own_streams_and_status() -> None:
    """Standard input reaches it, output and errors come back apart, and its status is ours."""
    script = "tr a-z A-Z; echo wrong >&2; uname -r; exit 7"
    done = lab("run", "--kernel", KERNEL, "--", "sh", "-c", script, input=b"hello\n")
    release = kernels.resolve(KERNEL).release
    assert f"HELLO\n{release}\n".encode() == done.stdout
    assert "wrong" == last_line(done.stderr)
    assert 7 == done.returncode


def test_a_guest_has_python_and_ioxide() -> None:
    """`python3` is this environment's, and finds ioxide without a word about paths."""
    script = "import ioxide, pytest, sys; print(sys.prefix, ioxide.probe().release)"
    done = lab("run", "--kernel", KERNEL, "--", "python3", "-c", script)
    assert 0 == done.returncode, done.stderr.decode()
    assert f"{sys.prefix} {kernels.resolve(KERNEL).release}\n" == done.stdout.decode()


@pytest.mark.slow
def test_a_copied_directory_is_where_it_was(tmp_path: Path) -> None:
    """--copy takes files, links and modes along; the command starts in it; a signal is 128 + n."""
    tests = tmp_path / "static tests"
    tests.mkdir()
    (tests / "one").write_text("#!/bin/sh\ncat data; pwd; echo $COLOUR; kill -SEGV $$\n")
    (tests / "one").chmod(0o755)
    (tests / "data").symlink_to("real")
    (tests / "real").write_text("data\n")
    done = lab(
        *("run", "--kernel", KERNEL, "--copy", tests, "--env", "COLOUR=red", "--", "./one", "x y")
    )
    assert f"data\n{tests}\nred\n" == done.stdout.decode()
    assert 128 + signal.SIGSEGV == done.returncode


WISHES = (
    *("--cpus", "2", "--memory", "384M", "--module", "veth", "--append", "foo.bar=1"),
    *("--sysctl", "vm.swappiness=7", "--sysctl", "net/ipv4/ip_local_port_range=20000 30000"),
    *("--device", "virtio-rng-pci"),
)
SEEN = """
grep -c ^processor /proc/cpuinfo; lsmod | grep -o ^veth; grep -o foo.bar=1 /proc/cmdline
cat /proc/sys/vm/swappiness /proc/sys/net/ipv4/ip_local_port_range
cat /sys/bus/virtio/devices/*/device | grep -c 0x0004; head -1 /proc/meminfo
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["qemu", "vng"])
def test_a_guest_has_what_was_asked_for(launcher: str) -> None:
    """Processors, memory, modules, sysctls, words of the command line and devices are there before
    the command runs, whoever boots the guest."""
    done = lab("run", "--launcher", launcher, "--kernel", KERNEL, *WISHES, "--", "sh", "-c", SEEN)
    assert 0 == done.returncode, done.stderr.decode()
    *lines, memory = done.stdout.decode().splitlines()
    assert ["2", "veth", "foo.bar=1", "7", "20000\t30000"] == lines[:5]
    assert "0" != lines[5]
    assert 250_000 < int(memory.split()[1]) < 384 << 10


@pytest.mark.slow
def test_what_a_command_left_comes_here_though_it_failed(tmp_path: Path) -> None:
    """--pull brings a directory and a file, says what is missing, and the status stays CMD's."""
    script = "mkdir -p /tmp/out/a; echo one >'/tmp/out/a/x y'; ln -s /etc /tmp/out/away; exit 3"
    pulls = ("--pull", f"/tmp/out:{tmp_path}/got", "--pull", f"/proc/version:{tmp_path}/v")
    missing = ("--pull", f"/nosuch:{tmp_path}/n")
    done = lab("run", "--kernel", KERNEL, *pulls, *missing, "--", "sh", "-c", script)
    assert 3 == done.returncode
    assert "one\n" == (tmp_path / "got/a/x y").read_text()
    assert "Linux version 6.12" in (tmp_path / "v").read_text()
    said = done.stderr.decode()
    assert "lab: --pull /nosuch: the guest has no /nosuch: No such file or directory" in said
    assert "lab: --pull /tmp/out: left out away: a link to /etc, which is not in /tmp/out" in said
    assert ["got", "v"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.slow
def test_what_cannot_be_pulled_is_125(tmp_path: Path) -> None:
    """A command that went well and left nothing has not done what was wanted; one that takes too
    long leaves what it has."""
    tail = ("--timeout", "3", "--pull", f"/tmp/x:{tmp_path}/x", "--", "sh", "-c")
    done = lab("run", "--kernel", KERNEL, *tail, "true")
    assert 125 == done.returncode
    done = lab("run", "--kernel", KERNEL, *tail, "echo one >/tmp/x; sleep 1000")
    assert 125 == done.returncode
    assert "sh was not done after 3 s" in last_line(done.stderr)
    assert "one\n" == (tmp_path / "x").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ("vm.nosuch=1", "does not take the sysctl vm.nosuch=1: it has no such sysctl"),
        ("vm.swappiness=lots", "does not take the sysctl vm.swappiness=lots: "),
    ],
)
def test_a_sysctl_that_the_guest_does_not_take_is_125(wish: str, why: str) -> None:
    """Whether it has none of that name or refuses the value, the command does not run."""
    done = lab("run", "--kernel", KERNEL, "--sysctl", wish, "--", "echo", "ran")
    assert 125 == done.returncode
    assert why in last_line(done.stderr)
    assert b"" == done.stdout


@pytest.mark.slow
def test_what_cannot_be_run_has_the_shells_status() -> None:
    """127 for no such program, 126 for one that may not be executed: none of them the lab's."""
    done = lab("run", "--kernel", KERNEL, "--", "sh", "-c", "nosuch; a=$?; /etc/passwd; echo $a $?")
    assert b"127 126\n" == done.stdout
    done = lab("run", "--kernel", KERNEL, "--", "/nosuch/program")
    assert 127 == done.returncode
    assert b"not found" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--kernel", "nonsense", "--", "true"), "unknown kernel 'nonsense'"),
        (("--kernel", KERNEL), "there is no command"),
        (("--", "true"), "one of --kernel and --kernel-file is needed"),
        (("--kernel", KERNEL, "--bogus", "--", "true"), "unknown arguments: --bogus"),
        (("--kernel", KERNEL, "--cpus", "0", "--", "true"), "--cpus is 0; a guest has 1 to 64"),
        (
            ("--kernel", KERNEL, "--memory", "1Q", "--", "true"),
            "--memory is '1Q', which is no size",
        ),
        (
            ("--kernel", KERNEL, "--append", "panic=0", "--", "true"),
            "--append has 'panic=0', which",
        ),
        (("--kernel", KERNEL, "--sysctl", "x", "--", "true"), "--sysctl is 'x', which is not NAME"),
        (("--kernel", KERNEL, "--module", "nosuch", "--", "true"), "has no module nosuch, neither"),
        (("--kernel", KERNEL, "--pull", "/x:", "--", "true"), "names no place here behind"),
        (("--kernel", KERNEL, "--device", "nosuch", "--", "true"), "there is no device 'nosuch'"),
        (("--kernel", KERNEL, "--env", "X", "--", "true"), "--env 'X' is not NAME=VALUE"),
        (("--kernel", KERNEL, "--copy", "/nosuch", "--", "true"), "no such file"),
        (("--kernel", KERNEL, "--copy", "/proc/self", "--", "true"), "/proc of its own"),
        (("--kernel-file", "/etc/passwd", "--", "true"), "/etc/passwd is not a kernel image for"),
        (("--kernel-file", "/nosuch", "--", "true"), "the kernel /nosuch cannot be read"),
        (("--kernel", KERNEL, "--modules", "/", "--", "true"), "--modules goes with --kernel-file"),
    ],
)
def test_a_wrong_request_is_125(arguments: Sequence[str], sentence: str) -> None:
    """Whatever is wrong before the command runs is the lab's: 125, and a line that says what."""
    done = lab("run", *arguments)
    assert 125 == done.returncode
    assert sentence in last_line(done.stderr)
    assert b"" == done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("run", "--", "true"), ("shell",)], ids=["run", "shell"])
def test_logs_that_cannot_be_written_are_a_sentence(command: Sequence[str]) -> None:
    """Before anything boots."""
    name, *rest = command
    done = lab(name, "--kernel", "6.12", "--results", "pyproject.toml/logs", *rest)
    assert 125 == done.returncode
    said = "lab: the guest's logs cannot be written to pyproject.toml/logs: Not a directory"
    assert done.stderr.decode().startswith(said)
    assert 1 == done.stderr.decode().count("\n")


@pytest.mark.slow
def test_a_lost_guest_is_125_with_its_reason() -> None:
    """A panic is no exit status of the command's."""
    done = lab("run", "--kernel", KERNEL, "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert 125 == done.returncode
    assert "sysrq triggered crash" in last_line(done.stderr)


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_125() -> None:
    """--timeout ends the guest and says how long it was."""
    done = lab("run", "--kernel", KERNEL, "--timeout", "1.5", "--", "sleep", "1000")
    assert 125 == done.returncode
    assert "sleep was not done after 1.5 s" in last_line(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_130_and_leaves_no_guest(number: signal.Signals) -> None:
    """Ctrl-C in the middle: 130, no traceback, and the emulator is gone."""
    with started("run", "--kernel", KERNEL, "--", "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"up\n" == process.stdout.readline()
        qemus = qemus_of(process.pid)
        assert 1 == len(qemus)
        process.send_signal(number)
        assert 130 == process.wait(SOON)
        assert "lab: interrupted" == last_line(process.stderr.read())
    assert not Path(f"/proc/{qemus[0]}").exists()


@pytest.mark.slow
def test_output_that_nobody_reads_ends_the_run() -> None:
    """`lab run ... | head` ends as a program there would: 141, and quietly."""
    with started("run", "--kernel", KERNEL, "--", "yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"y\n" == process.stdout.readline()
        process.stdout.close()
        assert 141 == process.wait(SOON)
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_endless_input_does_not_fill_the_guest() -> None:
    """A command that reads nothing of an endless input is not buried under it."""
    with (
        subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "lab", "run", "--kernel", KERNEL, "--"),
                *("sh", "-c", "sleep 3; read a; echo $a; grep ^MemFree /proc/meminfo"),
            ],
            cwd=ROOT,
            stdin=yes.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        output, _ = process.communicate(timeout=SOON)
        yes.kill()
    match = re.fullmatch(rb"y\nMemFree: +(\d+) kB\n", output)
    assert match is not None
    assert 300_000 < int(match[1])
    assert 0 == process.returncode


def test_what_a_guest_has_of_its_own_is_not_copied(tmp_path: Path) -> None:
    """/ and the guest's own directories are refused; a path keeps its links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert tmp_path / "link" == booting.checked(tmp_path / "real/../link")
    for path in ("/", "/dev", "/sys/kernel"):
        with pytest.raises(UsageError, match="of its own"):
            booting.checked(Path(path))


def until(terminal: int, words: bytes) -> bytes:
    """What comes from a terminal up to `words`."""
    seen = b""
    deadline = time.monotonic() + SOON
    while words not in seen:
        assert time.monotonic() < deadline, seen
        ready, _, _ = select.select([terminal], [], [], 2.0)
        if ready:
            seen += os.read(terminal, 4096)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "place"), [("qemu", "/"), ("vng", str(ROOT))])
def test_a_shell_has_a_terminal_of_the_guests(launcher: str, place: str) -> None:
    """Ctrl-C ends what runs in the shell and not the shell; its status is ours; its prompt says
    where it is."""
    command = [sys.executable, "-m", "lab", "shell", "--kernel", KERNEL, "--launcher", launcher]
    ours, its = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        try:
            prompt = f"[{kernels.resolve(KERNEL).upstream} {place}]# ".encode()
            until(ours, prompt)
            # It runs once it has said so, in words that are not those of the line typed; and it is
            # interrupted once, because a shell throws away what is typed behind a second one.
            os.write(ours, b"tty; uname -r; sh -c 'echo sta''rted; exec sleep 1000'\r")
            release = kernels.resolve(KERNEL).release.removesuffix("cloud-amd64").encode()
            assert release in until(ours, b"started\r\n")
            os.write(ours, b"\x03")
            until(ours, prompt)
            os.write(ours, b"exit 5\r")
            assert 5 == process.wait(SOON)
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.slow
def test_a_shell_without_a_terminal_reads_commands() -> None:
    """A script at the standard input is run; the shell's status is ours."""
    done = lab("shell", "--kernel", KERNEL, input=b"echo $((6 * 7))\nexit 4\n")
    assert b"42\n" == done.stdout
    assert 4 == done.returncode


def test_virtme_ng_runs_a_command_with_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same store through virtme-ng: exit 7 is 7, streams are apart, this machine's files are
    there, and nothing of it stays."""
    # A directory of this test's: another run on this machine has one of its own in /tmp.
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(place))
    script = f"cat; uname -r; test -e {ROOT}/pyproject.toml || exit 1; echo wrong >&2; exit 7"
    done = lab(
        *("run", "--launcher", "vng", "--kernel", KERNEL, "--", "sh", "-c", script),
        input=b"hello\n",
    )
    assert 7 == done.returncode, done.stderr.decode()
    package = kernels.resolve(KERNEL).package
    full = kernels.resolve(package, flavour=kernels.Flavour.FULL)
    assert f"hello\n{full.release}\n".encode() == done.stdout
    assert "wrong" == last_line(done.stderr)
    assert [] == list(place.glob("lab-vng-*"))
    shutil.rmtree(place)  # virtme-ng 1.42 leaves an empty file of its own there


@pytest.mark.slow
def test_a_copied_directory_is_virtme_ngs_to_write_in(tmp_path: Path) -> None:
    """--copy with virtme-ng: the directory is there without a copy, and what the guest writes in
    it is the guest's alone, wherever it lies."""
    place = Path(tempfile.mkdtemp(dir=ROOT, prefix=".vng-"))
    try:
        for directory in (tmp_path, place):
            (directory / "data").write_text("ours\n")
            vng = ("run", "--launcher", "vng", "--kernel", KERNEL, "--copy", directory, "--")
            done = lab(*vng, "sh", "-c", "cat data; echo theirs >data; cat data; pwd")
            assert f"ours\ntheirs\n{directory}\n" == done.stdout.decode(), done.stderr.decode()
            assert "ours\n" == (directory / "data").read_text()
    finally:
        shutil.rmtree(place)


@pytest.mark.slow
def test_virtme_ng_that_loses_its_guest_is_125() -> None:
    """A panic and a killed command are told apart, though virtme-ng says 255 of both."""
    vng = ("run", "--launcher", "vng", "--kernel", KERNEL, "--", "sh", "-c")
    done = lab(*vng, "echo c >/proc/sysrq-trigger")
    assert 125 == done.returncode
    assert "Kernel panic - not syncing: sysrq triggered crash" in last_line(done.stderr)
    assert 128 + signal.SIGKILL == lab(*vng, "kill -KILL $$").returncode


@pytest.mark.slow
def test_a_kernel_of_ones_own_boots(tmp_path: Path) -> None:
    """--kernel-file with --modules: an image somewhere, its modules elsewhere."""
    files = kernels.obtain(kernels.resolve(KERNEL))
    image = tmp_path / "bzImage"
    image.write_bytes(files.vmlinuz.read_bytes())
    done = lab(
        *("run", "--kernel-file", image, "--modules", files.modules.parents[2], "--"),
        *("sh", "-c", "uname -r; modprobe veth"),
    )
    assert 0 == done.returncode, done.stderr.decode()
    assert f"{files.kernel.release}\n" == done.stdout.decode()
    assert b"unlocked" in done.stderr
