# SPDX-License-Identifier: MIT
"""A guest that is a directory and a process on the host, with the interface of lab.vm.Guest.

`Misdeeds` says what it does wrong; by default it is honest.
"""

from __future__ import annotations

import io
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import GuestLost
from lab.kernels import Kernel
from lab.vm import Accel, AccelKind, Completed, Control, Event, Exited, Output, Stream

INIT = Path(__file__).with_name("init.py")
KMSG_VARIABLE = "LAB_FAKE_KMSG"
PANIC = "Kernel panic - not syncing: fake"


@dataclass(frozen=True, slots=True)
class Misdeeds:
    """What a fake guest does wrong."""

    never_boots: bool = False
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


class FakeProcess:
    """A process of the fake guest."""

    def __init__(self, guest: FakeGuest, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._guest = guest
        self._misdeeds = guest.misdeeds
        ours, theirs = socket.socketpair()
        self._control = ours
        self._events: queue.Queue[Event] = queue.Queue()
        self._renumber = 0
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
        if wrong.extra_collected and kind == "collected":
            message["ids"].append("tests/test_nowhere.py::test_nobody")
        if wrong.wrong_tree and kind == "hello":
            message["tree_sha256"] = "0" * 64
        return [message, dict(message)] if kind == wrong.duplicate else [message]

    def _wait(self) -> None:
        status = self._process.wait()
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
        self.boot_seconds = 0.1
        self.slowdown = 1.0
        self.console = results / "console.log"
        self.console.write_text("[    0.000000] fake kernel\n")
        self.directory = directory / "tree"
        self.misdeeds = misdeeds
        self.processes: list[FakeProcess] = []
        self._lost = ""
        self._cmdline = directory / "cmdline"
        told = "f" * 16 if misdeeds.wrong_nonce else self.nonce
        self._cmdline.write_text(f"console=ttyS0 lab.nonce={told} panic=-1\n")

    def lose(self, reason: str) -> None:
        """From now on every call raises GuestLost."""
        self._lost = reason
        for process in self.processes:
            process.kill()

    def alive(self) -> None:
        """Raise GuestLost if the guest is gone."""
        if not self._lost and PANIC in self.console.read_text():
            self.lose(f"the guest's kernel panicked: {PANIC}")
        if self._lost:
            tail = "\n".join(self.console.read_text().splitlines()[-20:])
            raise GuestLost(self._lost, console_tail=tail)

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command as it is run on the host."""
        assert argv[0] == sys.executable
        if argv[1] != "-m":
            return list(argv)
        if argv[2] == "pytest" and self.misdeeds.pytest_missing:
            return [sys.executable, "-c", "import pytest_is_not_here"]
        return [sys.executable, str(INIT), str(self._cmdline), *argv[2:]]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment as it is on the host; the virtual environment's Python needs nothing."""
        return {"PATH": os.environ["PATH"], KMSG_VARIABLE: str(self.console), **env}

    def push_tree(self, tar: bytes, directory: str) -> None:  # noqa: ARG002
        """As lab.vm.Guest.push_tree."""
        self.directory.mkdir(exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            # extractall(filter=) is of 3.11.4, and Debian 12 has 3.11.2; the attribute is for both.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(self.directory)

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
        done = subprocess.run(
            self.argv(argv),
            cwd=self.directory,
            env=self.environment(env or {}),
            input=input,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",  # noqa: ARG002
    ) -> FakeProcess:
        """As lab.vm.Guest.spawn."""
        process = FakeProcess(self, argv, env or {})
        self.processes.append(process)
        return process

    def kernel_log(self) -> bytes:
        """As lab.vm.Guest.kernel_log."""
        return self.console.read_bytes()

    def mark_kernel_log(self, text: str) -> None:
        """As lab.vm.Guest.mark_kernel_log."""
        self.alive()
        with self.console.open("a") as file:
            file.write(f"[    1.000000] {text}\n")


class FakeLab:
    """Gives fake guests, all with the same misdeeds."""

    def __init__(self, kernel: Kernel, misdeeds: Misdeeds) -> None:
        self._kernel, self._misdeeds = kernel, misdeeds

    def prepare(self, results: Path) -> None:
        """There is nothing to fetch."""

    def side_by_side(self) -> int:
        """As many as there are tests for."""
        return 2

    @contextmanager
    def boot(
        self,
        results: Path,
        *,
        interrupt: int | None = None,  # noqa: ARG002  (nothing here waits for long)
    ) -> Iterator[FakeGuest]:
        """A fresh fake guest."""
        if self._misdeeds.never_boots:
            raise GuestLost(
                "the agent said nothing within 120 s", console_tail="[    0.5] Run /init as init"
            )
        directory = Path(tempfile.mkdtemp(prefix="lab-fake-"))
        guest = FakeGuest(self._kernel, directory, results, self._misdeeds)
        try:
            yield guest
        finally:
            for process in guest.processes:
                process.close()
            shutil.rmtree(directory)
