# SPDX-License-Identifier: MIT
"""Where a run's guests come from: the kernel store, the root image, QEMU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab.kernels
import lab.vm
from lab.kernels import Kernel, KernelFiles

from .plan import Lab


class KernelLab:
    """Boots one kernel, as often as asked; what all guests share is made once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._made: tuple[KernelFiles, Path, lab.vm.Accel] | None = None

    @contextmanager
    def boot(self, results: Path) -> Iterator[lab.vm.Guest]:
        """A fresh guest whose files go to `results`. Raises LabError."""
        if self._made is None:
            files = lab.kernels.obtain(self._kernel)
            rootfs = lab.vm.build_rootfs()
            self._made = files, rootfs, lab.vm.choose_accel(files, results=results)
        files, rootfs, accel = self._made
        with lab.vm.boot(files, rootfs=rootfs, accel=accel, results=results) as guest:
            yield guest


def guests_of(kernel: Kernel) -> Lab:
    """The way to guests that `lab test` uses unless a plugin offers another."""
    return KernelLab(kernel)
