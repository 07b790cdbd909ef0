# SPDX-License-Identifier: MIT
"""How a kernel is entered, and which way worked for which kernel.

QEMU starts an uncompressed ELF by its PVH note (XEN_ELFNOTE_PHYS32_ENTRY: 32-bit protected mode, no
firmware), which spares a guest the menu and the unpacking: 3 s under emulation.
Some kernels do not come up that way: a 6.11.11 built from vanilla sources hangs without one byte on
its console, and boots as a bzImage at once.  The other way is then tried once, and remembered for
this very kernel, this QEMU and this accelerator.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from pathlib import Path

from .. import cache
from ..kernels import KernelFiles
from . import qemu
from .processor import Accel


class Entry(StrEnum):
    """A way into a kernel; the value is what a report calls it."""

    PVH = "by PVH, as an uncompressed ELF"
    BZIMAGE = "as a bzImage"

    @property
    def other(self) -> Entry:
        """The way to try when this one shows no sign of life."""
        return Entry.BZIMAGE if self is Entry.PVH else Entry.PVH

    def image(self, files: KernelFiles) -> Path:
        """The file that QEMU is given."""
        return files.vmlinux if self is Entry.PVH else files.vmlinuz


def remembered(files: KernelFiles, accel: Accel) -> Entry:
    """The way that worked for this kernel when the usual one did not, else the usual one: PVH.

    Raises LabError where there is no cache.
    """
    try:
        return Entry[json.loads(_place(files, accel).read_text())["entry"]]
    except (FileNotFoundError, ValueError, KeyError):
        return Entry.PVH


def remember(files: KernelFiles, accel: Accel, entry: Entry) -> None:
    """Enter this kernel this way from now on. Raises LabError."""
    place = _place(files, accel)
    with cache.locked("entries"), cache.scratch() as directory:
        made = directory / place.name
        made.write_text(json.dumps({"kernel": files.kernel.release, "entry": entry.name}))
        cache.publish(made, place)


def _place(files: KernelFiles, accel: Accel) -> Path:
    # The directory's name holds a hash of what was unpacked into it (lab.kernels.store).
    facts = [files.vmlinux.parent.name, qemu.version(), str(accel.kind), accel.machine, accel.cpu]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return cache.root() / "entries" / f"{key}.json"
