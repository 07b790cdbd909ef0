# SPDX-License-Identifier: MIT
"""Who boots a kernel, and what all its guests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from .. import kernels
from ..kernels import Kernel, KernelFiles
from . import room, virtme
from .accel import choose_accel
from .guest import Guest, boot
from .processor import Accel, AccelKind
from .rootfs import build_rootfs

_ROOM_MIB = 1536
"""What a guest takes of this machine's memory at most, in MiB, with what QEMU itself needs."""


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
        self._made: tuple[KernelFiles, Accel, Path | None] | None = None

    def prepare(self, results: Path) -> tuple[KernelFiles, Accel]:
        """Fetch the kernel, prove an accelerator and make the root image, once. Raises LabError."""
        files, accel, _ = self._prepare(results)
        return files, accel

    def side_by_side(self) -> int:
        """How many guests this machine runs at once without one slowing the other down. Only what
        emulates has use for a second: it keeps one processor busy and is ten times slower."""
        if self._made is None or self._made[1].kind is not AccelKind.TCG:
            return 1
        return max(1, min(2, room.processors() // self._cpus, room.free_mib() // _ROOM_MIB))

    def _prepare(self, results: Path) -> tuple[KernelFiles, Accel, Path | None]:
        if self._made is None:
            files = kernels.obtain(self._kernel)
            accel = choose_accel(files, results=results)
            rootfs = build_rootfs() if self._launcher is Launcher.QEMU else None
            self._made = files, accel, rootfs
        return self._made

    @contextmanager
    def boot(self, results: Path, *, interrupt: int | None = None) -> Iterator[Guest]:
        """A fresh guest whose logs go to `results`; `interrupt` as in `boot`. May be called from
        several threads once `prepare` was. Raises LabError."""
        files, accel, rootfs = self._prepare(results)
        if rootfs is None:
            guests = virtme.boot(
                files,
                accel=accel,
                results=results,
                cpus=self._cpus,
                memory_mib=self._memory_mib or 1024,
                writable=self._writable,
                interrupt=interrupt,
            )
        else:
            guests = boot(
                files,
                rootfs=rootfs,
                accel=accel,
                results=results,
                cpus=self._cpus,
                memory_mib=self._memory_mib or 768,
                interrupt=interrupt,
            )
        with guests as guest:
            yield guest
