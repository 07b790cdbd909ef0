# SPDX-License-Identifier: MIT
"""A booted guest, and the processes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.kernels import Kernel, KernelFiles

from .accel import Accel
from .events import Completed, Event

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class Process:
    """A process in the guest. Not for use from several threads at once."""

    def send(self, obj: Mapping[str, Any]) -> None:
        """Send one JSON object as a line to the process's control socket."""
        raise NotImplementedError

    def receive(self, timeout_s: float) -> Event:
        """The process's next event. Raises TimeoutError, GuestLost."""
        raise NotImplementedError

    def kill(self, signal: int = 9) -> None:
        """Send `signal` to the process (9: to everything it started, too)."""
        raise NotImplementedError


class Guest:
    """A guest whose agent has proved its identity. Not for use from several threads at once."""

    kernel: Kernel
    accel: Accel
    nonce: str
    uname: str
    boot_seconds: float
    slowdown: float
    console: Path

    def push_tree(self, tar: bytes, directory: str) -> None:
        """Unpack a tar (compressed or not) below `directory`, which is made if missing."""
        raise NotImplementedError

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENVIRONMENT,
        cwd: str = "/",
        timeout_s: float,
        input: bytes = b"",
    ) -> Completed:
        """Run a command to its end. Raises TimeoutError (after killing it), GuestLost."""
        raise NotImplementedError

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENVIRONMENT,
        cwd: str = "/",
    ) -> Process:
        """Start a command; it inherits a control socket, whose number is in LAB_CONTROL_FD."""
        raise NotImplementedError

    def kernel_log(self) -> bytes:
        """What the kernel wrote on its console so far, complete lines only."""
        raise NotImplementedError

    def mark_kernel_log(self, text: str) -> None:
        """Write a line into the kernel log; on return it and all before it are in kernel_log()."""
        raise NotImplementedError


@contextmanager
def boot(
    files: KernelFiles,
    *,
    rootfs: Path,
    accel: Accel,
    results: Path,
    cpus: int = 1,
    memory_mib: int = 768,
    extra_cmdline: Sequence[str] = (),
    timeout_s: float | None = None,
) -> Iterator[Guest]:
    """Boot a guest; it is gone when the block is left, however it is left. Raises GuestLost."""
    raise NotImplementedError
    yield
