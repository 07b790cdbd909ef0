# SPDX-License-Identifier: MIT
"""Who boots a kernel, and what all its guests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from lab import kernels
from lab.kernels import Kernel, KernelFiles

from . import virtme
from .accel import choose_accel
from .guest import Guest, boot
from .processor import Accel
from .rootfs import build_rootfs


class Launcher(StrEnum):
    """What boots a guest."""

    QEMU = "qemu"
    """The lab itself: an image of this Python as root."""
    VNG = "vng"
    """virtme-ng: this machine's own files as root, read-only."""

    def bootable(self, kernel: Kernel) -> Kernel:
        """The same release as a kernel that this launcher can boot. Raises MissingTool, UsageError,
        KernelUnavailable."""
        if self is Launcher.QEMU:
            return kernel
        virtme.program()  # before a download of a hundred megabytes, not after
        return virtme.with_9p(kernel)

    @property
    def words(self) -> str:
        """For a report; empty for the lab itself."""
        return "" if self is Launcher.QEMU else "by virtme-ng, with this machine's files as root"


class Launchpad:
    """Boots one kernel, as often as asked; what all guests share is made once."""

    def __init__(
        self,
        kernel: Kernel,
        launcher: Launcher = Launcher.QEMU,
        *,
        cpus: int = 1,
        memory_mib: int | None = None,
        writable: Sequence[Path] = (),
    ) -> None:
        """`memory_mib` is the launcher's own default if None. `writable` are directories of this
        machine's in which a guest that has them as they are may write; it alone sees that."""
        self._kernel, self._launcher = kernel, launcher
        self._cpus, self._memory_mib, self._writable = cpus, memory_mib, writable
        self._made: tuple[KernelFiles, Accel] | None = None

    def prepare(self, results: Path) -> tuple[KernelFiles, Accel]:
        """Fetch the kernel and prove an accelerator, once. Raises LabError."""
        if self._made is None:
            files = kernels.obtain(self._kernel)
            self._made = files, choose_accel(files, results=results)
        return self._made

    @contextmanager
    def boot(self, results: Path) -> Iterator[Guest]:
        """A fresh guest whose logs go to `results`. Raises LabError."""
        files, accel = self.prepare(results)
        if self._launcher is Launcher.VNG:
            guests = virtme.boot(
                files,
                accel=accel,
                results=results,
                cpus=self._cpus,
                memory_mib=self._memory_mib or 1024,
                writable=self._writable,
            )
        else:
            guests = boot(
                files,
                rootfs=build_rootfs(),
                accel=accel,
                results=results,
                cpus=self._cpus,
                memory_mib=self._memory_mib or 768,
            )
        with guests as guest:
            yield guest
