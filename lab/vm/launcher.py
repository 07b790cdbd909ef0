# SPDX-License-Identifier: MIT
"""What boots guests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..kernels import Kernel, KernelFiles
from ..wishes import Wishes
from .guest import Guest
from .processor import Accel


class Launcher(Protocol):
    """One way to boot a guest."""

    @property
    def name(self) -> str:
        """What it is asked for by."""
        ...

    @property
    def words(self) -> str:
        """For a report; empty for the usual one."""
        ...

    @property
    def has_our_files(self) -> bool:
        """Whether its guests have this machine's files at the same paths, so that nothing has to be
        copied into them."""
        ...

    def bootable(self, kernel: Kernel) -> Kernel:
        """The same release as a kernel that this launcher can boot. Raises MissingTool, UsageError,
        KernelUnavailable."""
        ...

    def prepare(
        self,
        files: KernelFiles,
        *,
        accel: Accel,
        wishes: Wishes,
        writable: Sequence[Path] = (),
        dumps: bool = False,
    ) -> Boot:
        """Make what all guests of this kernel share, and see whether they can have their `wishes`:
        processors, memory, devices and words on the kernel's command line. Modules and sysctls come
        later, see `lab.vm.provide`.

        `writable` are directories of this machine's in which a guest that has them as they are may
        write; it alone sees that. With `dumps` the memory of a guest can be written into a file
        that drgn opens, also once it has ended by itself. Raises LabError.
        """
        ...


class Boot(Protocol):
    """Boots one guest after the other; from several threads at once, if need be."""

    def __call__(
        self, results: Path, *, interrupt: int | None = None
    ) -> AbstractContextManager[Guest]:
        """A guest whose logs are in `results`; it is gone when the block is left.

        Once the descriptor `interrupt` is readable, whoever waits for the guest gets a
        KeyboardInterrupt. Raises GuestLost when it does not come up or is not the one that was
        started, and LabError.
        """
        ...
