# SPDX-License-Identifier: MIT
"""What a person looks into a fake guest with."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError
from lab.vm import Event, Exited, Output, Stream


class FakeShell:
    """A process on a terminal of its own, as lab.vm.Process."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        env: Mapping[str, str],
        window: tuple[int, int],
    ) -> None:
        self._ours, theirs = os.openpty()
        self.resize(window)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            cwd=directory,
            env=dict(env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def write(self, data: bytes, *, last: bool = False) -> int:
        """As lab.vm.Process.write."""
        del last
        with suppress(OSError):
            os.write(self._ours, data)
        return 0

    def resize(self, window: tuple[int, int]) -> None:
        """As lab.vm.Process.resize."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", *window, 0, 0))

    def wait(self, others: Sequence[int], timeout_s: float) -> set[int]:
        """As lab.vm.Process.wait."""
        ready, _, _ = select.select([self._ours, *others], [], [], timeout_s)
        return set(ready) & set(others)

    def receive(self, timeout_s: float) -> Event:
        """As lab.vm.Process.receive."""
        if not select.select([self._ours], [], [], timeout_s)[0]:
            raise TimeoutError("nothing was said")
        try:
            return Output(Stream.STDOUT, os.read(self._ours, 4096))
        except OSError:
            return Exited(self._process.wait())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """As lab.vm.Process.kill."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self._process.wait()
        os.close(self._ours)


class FakeHypervisor:
    """Whoever connects as gdb is told who he talks to."""

    def __init__(self, no_dump: str = "") -> None:
        self._door: socket.socket | None = None
        self._no_dump = no_dump

    def dump(self, file: Path) -> None:
        """As lab.vm.machine.Hypervisor."""
        if self._no_dump:
            raise LabError(self._no_dump)
        file.write_bytes(b"made up")

    def registers(self) -> str:
        """As lab.vm.machine.Hypervisor."""
        return "RIP=ffffffff81000000 made up"

    def serve_gdb(self, door: Path) -> None:
        """As lab.vm.machine.Hypervisor."""
        if self._door is not None:
            raise LabError("QEMU does not wait for gdb twice")
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(door))
        self._door.listen(1)
        threading.Thread(target=self._serve, args=(self._door,), daemon=True).start()

    def _serve(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                gdb, _ = door.accept()
                with gdb:
                    gdb.sendall(b"a fake gdbserver")

    def end_gdb(self) -> None:
        """As lab.vm.machine.Hypervisor."""
        assert self._door is not None
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._door = None
