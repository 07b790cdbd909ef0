# SPDX-License-Identifier: MIT
"""How a kernel is entered, and which way worked for which kernel.

A kind of machine may have several ways into a kernel (`lab.arch.Entry`), the quickest of which not
every kernel takes. Another is then tried once, and remembered for this very kernel, this QEMU and
this accelerator.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .. import arch, cache
from ..arch import Entry
from ..kernels import KernelFiles
from . import qemu
from .processor import Accel


def usual() -> Entry:
    """The way that is tried first."""
    return arch.here().entries[0]


def other_than(entry: Entry) -> Entry | None:
    """The way to try when this one shows no sign of life; None if there is no other."""
    return next((one for one in arch.here().entries if one != entry), None)


def image(files: KernelFiles, entry: Entry) -> Path:
    """The file that QEMU is given."""
    return files.vmlinux if entry.unpacked else files.vmlinuz


def remembered(files: KernelFiles, accel: Accel) -> Entry:
    """The way that worked for this kernel when the usual one did not, else the usual one.

    Raises LabError where there is no cache.
    """
    try:
        name = json.loads(_place(files, accel).read_text())["entry"]
    except (FileNotFoundError, ValueError, KeyError):
        return usual()
    return next((one for one in arch.here().entries if one.name == name), usual())


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
