# SPDX-License-Identifier: MIT
"""Boots one kernel as often as asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import kernels
from ..kernels import Kernel, KernelFiles
from ..wishes import Wishes
from . import provide, room
from .accel import choose_accel
from .guest import Guest
from .launcher import Boot, Launcher
from .launchers import USUAL
from .processor import Accel, AccelKind

_ROOM_MIB = 768
"""What QEMU and its caches take of this machine's memory beside the guest's, in MiB, at most."""
_USUAL_MIB = 768


class Launchpad:
    """Boots one kernel, as often as asked; what all guests share is made once."""

    def __init__(
        self,
        kernel: Kernel,
        launcher: Launcher = USUAL,
        *,
        wishes: Wishes = Wishes(),  # noqa: B008  (it is frozen)
        writable: Sequence[Path] = (),
        dumps: bool = False,
    ) -> None:
        """`writable` and `dumps` as in `Launcher.prepare`."""
        self._dumps = dumps
        self._kernel, self._launcher = kernel, launcher
        self._wishes, self._writable = wishes, writable
        self._made: tuple[KernelFiles, Accel] | None = None
        self._boots: dict[Wishes, Boot] = {}
        self._lock = threading.Lock()

    def prepare(self, results: Path) -> tuple[KernelFiles, Accel]:
        """Fetch the kernel, prove an accelerator and make the root image, once. Raises LabError."""
        with self._lock:
            if self._made is None:
                files = kernels.obtain(self._kernel)
                provide.check(files, self._wishes)
                if self._dumps:
                    provide.check_dumps(files)
                self._made = files, choose_accel(files, results=results)
            self._booting(*self._made, self._wishes)
            return self._made

    def _booting(self, files: KernelFiles, accel: Accel, wishes: Wishes) -> Boot:
        if wishes not in self._boots:
            provide.check(files, wishes)
            self._boots[wishes] = self._launcher.prepare(
                files, accel=accel, wishes=wishes, writable=self._writable, dumps=self._dumps
            )
        return self._boots[wishes]

    def side_by_side(self, others: Iterable[Wishes] = ()) -> int:
        """How many guests this machine runs at once without one slowing the other down, if some of
        them have `others`' wishes. Only what emulates has use for a second: it keeps one processor
        busy and is ten times slower."""
        if self._made is None or self._made[1].kind is not AccelKind.TCG:
            return 1
        return min(2, self.at_most(others))

    def at_most(self, others: Iterable[Wishes] = ()) -> int:
        """How many guests with the usual wishes, one of them with `others`', this machine has room
        for: each has its processors to itself, and its memory. At least one, whose own check of the
        memory then speaks."""
        cpus, memory = self._wishes.cpus or 1, self._wishes.memory_mib or _USUAL_MIB
        # The largest that some test asks for may be up beside the usual ones.
        largest = max((wishes.memory_mib or _USUAL_MIB for wishes in others), default=memory)
        more = max(0, largest - memory)
        free = room.free_mib() - more
        return max(1, min(room.processors() // cpus, free // (memory + _ROOM_MIB)))

    @contextmanager
    def boot(
        self, results: Path, *, wishes: Wishes | None = None, interrupt: int | None = None
    ) -> Iterator[Guest]:
        """A fresh guest whose logs go to `results`, with other `wishes` if they are given;
        `interrupt` as in `lab.vm.launcher.Boot`. May be called from several threads. Raises
        LabError."""
        made = self.prepare(results)
        wishes = self._wishes if wishes is None else wishes
        with self._lock:
            another = self._booting(*made, wishes)
        with another(results, interrupt=interrupt) as guest:
            provide.settle(guest, wishes)
            if self._dumps:
                provide.settle(guest, provide.FOR_DUMPS)
            guest.wishes = wishes
            yield guest
