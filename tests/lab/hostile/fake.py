# SPDX-License-Identifier: MIT
"""A guest that is a directory and a process on the host, with the interface of lab.vm.Guest.

`Misdeeds` says what it does wrong; by default it is honest.
"""

from __future__ import annotations

import io
import json
import os
import queue
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import arch
from lab.errors import GuestLost, LabError, UsageError
from lab.kernels import Kernel
from lab.remote.process import TREE
from lab.remote.wire import PRINTED_VARIABLE
from lab.vm import Accel, AccelKind, Completed, Control, Event, Exited, Output, Stream
from lab.vm.emulator import first_sign
from lab.vm.kmsg import Gap, Piece, Record
from lab.vm.printed import Printed
from lab.vm.pull import Pulled
from lab.wishes import Wishes

from .looking import FakeHypervisor, FakeShell

INIT = Path(__file__).with_name("init.py")
KMSG_VARIABLE = "LAB_FAKE_KMSG"
WISHES_VARIABLE = "LAB_FAKE_WISHES"
UPSTREAM_VARIABLE = "LAB_FAKE_UPSTREAM"
PANIC = "Kernel panic - not syncing: fake"
BOOT = "[    0.000000] fake kernel\n"
SYSRQ = "<6>[ 9.0] sysrq: Show State\n<4>[ 9.1] WARNING: CPU: 0 is no complaint here\n"
"""What its kernel answers to sysrq."""
_LINE = re.compile(r"(?:<(?P<priority>\d+)>)?(?:\[ *(?P<time>[\d.]+)\] )?(?P<text>.*)")
_DROPPED = re.compile(r"\*\* (\d+) printk messages dropped \*\*")
_USER = 8


@dataclass(frozen=True, slots=True)
class Misdeeds:
    """What a fake guest does wrong."""

    never_boots: bool = False
    cannot_be_prepared: bool = False
    """The kernel cannot be fetched, as is found out only in the run."""
    wrong_nonce: bool = False
    wrong_tree: bool = False
    pytest_missing: bool = False
    silent: bool = False
    """The process runs, and nothing it says arrives."""
    duplicate: str = ""
    """This kind of message arrives twice, numbered as if both were meant."""
    unknown_id: str = ""
    """This kind of message names a test that nobody knows."""
    drop: str = ""
    """This kind of message never arrives; the numbers are made to fit."""
    broken_frame_at: str = ""
    """The agent's channel breaks when this kind of message is due."""
    extra_collected: bool = False
    """The guest claims a test that the host does not have."""
    says_at: Mapping[str, str] = field(default_factory=dict)
    """What the kernel says, by when: "boot", "push", "probe", or a kind of message."""
    panics_after_s: float | None = None
    """A panic shows only so long after the end of the process that it took down."""
    vanishes: bool = False
    """The guest is gone with the first process that is killed, without a word."""
    deaf_to: Sequence[str] = ()
    """A command that has one of these words in it does not end."""
    closed: bool = False
    """Nobody can look into it from outside."""
    no_dump: str = ""
    """Why its memory cannot be written into a file."""
    cpus: int = 1
    """So many processors, with all that an old QEMU can do to them."""


class FakeProcess:
    """A process of the fake guest."""

    def __init__(self, guest: FakeGuest, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._guest = guest
        self._misdeeds = guest.misdeeds
        ours, theirs = socket.socketpair()
        self._control = ours
        self._events: queue.Queue[Event] = queue.Queue()
        self._renumber = 0
        self.ended: float | None = None
        """When, on the monotonic clock."""
        with theirs:
            self._process = subprocess.Popen(
                guest.argv(argv),
                cwd=guest.directory,
                env=guest.environment(env) | {"LAB_CONTROL_FD": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (
                self._read_control,
                self._output(Stream.STDOUT),
                self._output(Stream.STDERR),
            )
        ]
        for thread in self._threads:
            thread.start()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def send(self, obj: Mapping[str, Any]) -> None:
        """As lab.vm.Process.send."""
        self._guest.alive()
        # The process may be gone; its Exited is on the way then, as with a real agent.
        with suppress(OSError):
            self._control.sendall(json.dumps(obj).encode() + b"\n")

    def receive(self, timeout_s: float) -> Event:
        """As lab.vm.Process.receive."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._guest.alive()
            except GuestLost:
                # What was said before the guest went arrives, as from a real one.
                self._threads[0].join(10)
                with suppress(queue.Empty):
                    return self._events.get_nowait()
                raise
            try:
                return self._events.get(timeout=min(0.05, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise TimeoutError("nothing was said") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """As lab.vm.Process.kill."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self._waiter.join(10)
        self._control.close()

    def _output(self, stream: Stream) -> Callable[[], None]:
        pipe = self._process.stdout if stream is Stream.STDOUT else self._process.stderr
        assert pipe is not None

        def read() -> None:
            with pipe:
                while data := pipe.read1(65536):  # type: ignore[attr-defined]
                    self._events.put(Output(stream, data))

        return read

    def _read_control(self) -> None:
        # A process that is killed with words of ours unread resets the line instead of closing it.
        with suppress(ConnectionResetError), self._control.makefile("rb") as lines:
            for line in lines:
                for message in self._corrupt(json.loads(line)):
                    message["n"] = self._renumber
                    self._renumber += 1
                    self._events.put(Control(message))

    def _corrupt(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        wrong, kind = self._misdeeds, message["type"]
        if wrong.silent or kind == wrong.drop:
            return []
        if kind == wrong.broken_frame_at:
            self._guest.lose("the agent sent a broken frame: crc32 0x0 where 0x1 was due")
        if kind == wrong.unknown_id:
            message["id"] = "tests/test_nowhere.py::test_nobody"
            if "data" in message:
                message["data"]["nodeid"] = message["id"]
        self._guest.say(kind)
        if wrong.extra_collected and kind == "collected":
            message["ids"].append("tests/test_nowhere.py::test_nobody")
        if wrong.wrong_tree and kind == "hello":
            message["tree_sha256"] = "0" * 64
        return [message, dict(message)] if kind == wrong.duplicate else [message]

    def _wait(self) -> None:
        status = self._process.wait()
        self.ended = time.monotonic()
        if self._guest.lost:
            return  # a guest that is gone tells of no process's end
        if self._misdeeds.vanishes and status < 0:
            self._guest.lose("QEMU ended: the guest switched off or restarted")
            return
        # As the real agent: what the process started goes with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join(10)
        self._events.put(Exited(status))


class FakeGuest:
    """A fake guest; gone when its `booted` block is left."""

    def __init__(self, kernel: Kernel, directory: Path, results: Path, misdeeds: Misdeeds) -> None:
        self.kernel = kernel
        self.accel = Accel(AccelKind.TCG, "none", "none", "a fake guest, no machine at all")
        self.nonce = os.urandom(8).hex()
        self.uname = kernel.release
        self.entry = ""
        self.wishes = Wishes()
        self.boot_seconds = 0.1
        self.slowdown = 1.0
        self.console = results / "console.log"
        self.console.write_text(BOOT)
        self._printed = results / "printed.log"
        self._printed.touch()
        self.printed = Printed(self._printed)
        self.directory = directory / "tree"
        self.misdeeds = misdeeds
        self.deaths = tuple(d for d in arch.here().deaths if misdeeds.cpus >= d.processors)
        self.lost = ""
        self._records = 0
        self._read = 0
        self._told: set[str] = set()
        self.processes: list[FakeProcess] = []
        self.shells: list[FakeShell] = []
        self.hypervisor = None if misdeeds.closed else FakeHypervisor(misdeeds.no_dump)
        self._cmdline = directory / "cmdline"
        told = "f" * 16 if misdeeds.wrong_nonce else self.nonce
        self._cmdline.write_text(f"console=ttyS0 lab.nonce={told} panic=-1\n")

    def lose(self, reason: str) -> None:
        """From now on every call raises GuestLost."""
        self.lost = reason
        for process in self.processes:
            process.kill()

    def alive(self) -> None:
        """Raise GuestLost if the guest is gone."""
        text = self.console.read_text()
        if not self.lost and "Kernel panic - not syncing" in text and not self._dies_later():
            sign = first_sign(text.splitlines(), self.deaths)
            excuse = f" ({sign[1]})" if sign else ""
            self.lose(f"the guest's kernel panicked: {PANIC}{excuse}")
        if self.lost:
            tail = "\n".join(self.console.read_text().splitlines()[-20:])
            raise GuestLost(self.lost, console_tail=tail)

    def _dies_later(self) -> bool:
        after = self.misdeeds.panics_after_s
        if after is None:
            return False
        ended = [process.ended for process in self.processes]
        return None in ended or time.monotonic() < after + max(filter(None, ended), default=0.0)

    def say(self, when: str) -> None:
        """What the kernel says at this moment, the first time it comes."""
        if when in self.misdeeds.says_at and when not in self._told:
            self._told.add(when)
            with self.console.open("a") as file:
                file.write(self.misdeeds.says_at[when] + "\n")

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command as it is run on the host."""
        if argv[0] != sys.executable or argv[1] != "-m":
            return list(argv)
        missing = self.misdeeds.pytest_missing or "choking" in self.wishes.modules
        if argv[2] == "pytest" and missing:
            return [sys.executable, "-c", "import pytest_is_not_here"]
        return [sys.executable, str(INIT), str(self._cmdline), *argv[2:]]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment as it is on the host; the virtual environment's Python needs nothing."""
        told = {name: value.replace(TREE, str(self.directory)) for name, value in env.items()}
        own = {KMSG_VARIABLE: str(self.console), WISHES_VARIABLE: str(self.wishes)}
        own[UPSTREAM_VARIABLE] = self.kernel.upstream
        own[PRINTED_VARIABLE] = str(self._printed)
        return {"PATH": os.environ["PATH"], **own, **told}

    def push_tree(self, tar: bytes, directory: str) -> None:  # noqa: ARG002
        """As lab.vm.Guest.push_tree."""
        if "dying" in self.wishes.modules:
            self.lose(f"the guest's kernel panicked: {PANIC}")
            self.alive()
        self.directory.mkdir(exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            # extractall(filter=) is of 3.11.4, and Debian 12 has 3.11.2; the attribute is for both.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(self.directory)
        self.say("push")

    def pull(self, path: str, destination: Path) -> Pulled:
        """As lab.vm.Guest.pull. A data file of coverage's speaks of the tree as one in a guest."""
        self.alive()
        here = self.directory / Path(path).relative_to(TREE)
        if not here.exists():
            raise LabError(f"the guest has no {path}")
        if here.is_dir():
            shutil.copytree(here, destination, dirs_exist_ok=True)
            return Pulled(files=1)
        shutil.copy(here, destination)
        if destination.read_bytes().startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(destination)) as database, database:
                database.execute(
                    "UPDATE file SET path = replace(path, ?, ?)", (str(self.directory), TREE)
                )
        return Pulled(files=1)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",  # noqa: ARG002
        timeout_s: float,
        input: bytes = b"",
    ) -> Completed:
        """As lab.vm.Guest.run."""
        self.alive()
        if any(word in " ".join(argv) for word in self.misdeeds.deaf_to):
            raise TimeoutError(f"{argv[0]} was not done after {timeout_s:g} s")
        if "/proc/sysrq-trigger" in "".join(argv):  # not of this machine
            with self.console.open("a") as file:
                file.write(SYSRQ)
            return Completed(0, b"", b"")
        self.say("probe")
        try:
            done = subprocess.run(
                self.argv(argv),
                cwd=self.directory,
                env=self.environment(env or {}),
                input=input,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{argv[0]} was not done after {timeout_s:g} s") from None
        except FileNotFoundError as error:
            raise LabError(f"cannot run {argv[0]!r}: {error}") from error
        return Completed(done.returncode, done.stdout, done.stderr)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",  # noqa: ARG002
        window: tuple[int, int] | None = None,
    ) -> FakeProcess | FakeShell:
        """As lab.vm.Guest.spawn."""
        self.alive()
        if window is not None:
            shell = FakeShell(argv, self.directory, self.environment(env or {}), window)
            self.shells.append(shell)
            return shell
        process = FakeProcess(self, argv, env or {})
        self.processes.append(process)
        return process

    def ignore_interrupt(self) -> None:
        """As lab.vm.Guest.ignore_interrupt."""

    def ping(self, timeout_s: float) -> None:  # noqa: ARG002
        """As lab.vm.Guest.ping."""
        self.alive()

    def console_log(self) -> bytes:
        """As lab.vm.Guest.console_log."""
        return self.console.read_bytes()

    def read_kernel_log(self, mark: str = "") -> Piece:
        """As lab.vm.Guest.read_kernel_log: what stands in the file of the console, line by line.
        A line may begin with <priority>, and one that tells of lost lines stands for a gap."""
        self.alive()
        data = self.console.read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        records, gaps = [], []
        for line in data[self._read :].decode("utf-8", "backslashreplace").splitlines():
            if dropped := _DROPPED.search(line):
                gaps.append(Gap(self._records, self._records + int(dropped[1]) - 1))
                self._records += int(dropped[1])
                continue
            match = _LINE.fullmatch(line)
            assert match is not None
            micros = int(float(match["time"] or 0) * 1_000_000)
            priority = int(match["priority"] or 4)
            records.append(Record(self._records, priority, micros, False, match["text"]))
            self._records += 1
        self._read = len(data)
        if mark:
            with self.console.open("a") as file:
                file.write(f"<{_USER + 5}>[    1.000000] {mark}\n")
        return Piece(records, gaps)

    def ends_within(self, timeout_s: float) -> bool:
        """As lab.vm.Guest.ends_within."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                self.alive()
            except GuestLost:
                return True
            time.sleep(0.01)
        return False


class FakeLab:
    """Gives fake guests, all with the same misdeeds."""

    def __init__(self, kernel: Kernel, misdeeds: Misdeeds) -> None:
        self._kernel, self._misdeeds = kernel, misdeeds

    def prepare(self, results: Path) -> None:  # noqa: ARG002
        """There is nothing to fetch."""
        if self._misdeeds.cannot_be_prepared:
            raise LabError("the archive does not answer")

    def side_by_side(self, others: Iterable[Wishes] = ()) -> int:  # noqa: ARG002
        """As many as there are tests for."""
        return 2

    def at_most(self, others: Iterable[Wishes] = ()) -> int:  # noqa: ARG002
        """They need no room."""
        return 8

    @contextmanager
    def boot(
        self,
        results: Path,
        *,
        wishes: Wishes,
        interrupt: int | None = None,  # noqa: ARG002  (nothing here waits for long)
    ) -> Iterator[FakeGuest]:
        """A fresh fake guest, which has whatever it is asked for but for a module `nosuch`, and one
        `faulty` that its kernel complains of; with one `choking` no pytest starts there,
        with one `dying` it dies when it gets the tree, with one `mute` no process is heard."""
        self.prepare(results)
        if "nosuch" in wishes.modules:
            raise UsageError("9.9 has no module nosuch")
        if "faulty" in wishes.modules:
            (results / "console.log").write_text(f"{BOOT}[    1.5] BUG: bad page state\n{BOOT}")
            raise LabError("9.9 does not load the module faulty: Killed")
        if self._misdeeds.never_boots:
            raise GuestLost(
                "the agent said nothing within 120 s", console_tail="[    0.5] Run /init as init"
            )
        directory = Path(tempfile.mkdtemp(prefix="lab-fake-"))
        try:
            guest = FakeGuest(self._kernel, directory, results, self._misdeeds)
        except OSError:  # its console cannot be written
            shutil.rmtree(directory)
            raise
        guest.wishes = wishes
        if "mute" in wishes.modules:
            guest.misdeeds = replace(guest.misdeeds, silent=True)
            guest.slowdown = -2.9  # what is due is waited for 30 + 10 * slowdown seconds
        guest.say("boot")
        try:
            guest.alive()
            yield guest
        finally:
            for process in guest.processes:
                process.close()
            for shell in guest.shells:
                shell.close()
            shutil.rmtree(directory)
