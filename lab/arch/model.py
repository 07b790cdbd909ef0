# SPDX-License-Identifier: MIT
"""What the lab has to know of a kind of machine to boot a guest on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

Version = tuple[int, int, int]
"""QEMU's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A way into a kernel; it prints as what a report calls it."""

    name: str
    """What it is remembered by."""
    words: str
    unpacked: bool
    """Whether QEMU is given the kernel unpacked, or the image as it was built."""

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class Death:
    """How a kernel dies by a fault of the emulator."""

    signature: re.Pattern[str]
    """The first line of what its kernel says then."""
    fixed_in: Version
    """The first version of QEMU that does not do it."""
    processors: int
    """It takes at least so many."""
    reason: str


class Arch(Protocol):
    """One kind of machine."""

    # Properties, so that an implementation may have plain constants.
    @property
    def name(self) -> str:
        """What `uname -m` says: "x86_64"."""
        ...

    @property
    def debian(self) -> str:
        """What Debian's packages and Ubuntu's mainline archive call it: "amd64"."""
        ...

    @property
    def qemu(self) -> str:
        """QEMU's program."""
        ...

    @property
    def qemu_package(self) -> str:
        """Debian's and Ubuntu's package of that program."""
        ...

    @property
    def qemu_fedora(self) -> str:
        """Fedora's."""
        ...

    @property
    def elf_machine(self) -> int:
        """`e_machine` of its programs and kernels (elf.h)."""
        ...

    # -- the machine -----------------------------------------------------------------------------

    @property
    def machine(self) -> str:
        """The machine type, for -machine."""
        ...

    @property
    def kvm_cpu(self) -> str:
        """The processor that KVM runs."""
        ...

    def tcg_cpu(self, qemu: Version) -> str:
        """The processor that this QEMU emulates without fault."""
        ...

    def tcg_options(self, qemu: Version, cpus: int) -> str:
        """What goes behind `-accel tcg` for so many processors."""
        ...

    @property
    def transport(self) -> str:
        """The bus of virtio devices: what a device's name ends in, "pci" or "device"."""
        ...

    @property
    def virtio_modules(self) -> Sequence[str]:
        """The kernel modules of that bus."""
        ...

    @property
    def console(self) -> str:
        """The kernel's name of the first serial port."""
        ...

    @property
    def console_cmdline(self) -> Sequence[str]:
        """Words for the kernel's command line where that port is the console."""
        ...

    @property
    def cmdline(self) -> Sequence[str]:
        """Words for the kernel's command line that only this kind of machine takes."""
        ...

    # -- a kernel from sources -------------------------------------------------------------------

    @property
    def kbuild_target(self) -> str:
        """What `make` is asked for to make a kernel image."""
        ...

    @property
    def kbuild_image(self) -> str:
        """Where kbuild puts it, below its object directory."""
        ...

    @property
    def kconfig(self) -> Sequence[str]:
        """Lines for the configuration of a kernel that boots in this machine."""
        ...

    # -- the kernel ------------------------------------------------------------------------------

    @property
    def images(self) -> Sequence[str]:
        """Patterns of the names that a kernel image has."""
        ...

    @property
    def image_hint(self) -> str:
        """Where a person finds one."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The ways into a kernel, the usual one first; those behind it are tried when that shows no
        sign of life."""
        ...

    def version_text(self, image: BinaryIO) -> str | None:
        """What the kernel image in this open file calls itself; None if it is no image. Not every
        kind of image says so in its first bytes. Raises OSError."""
        ...

    def unpacked(self, data: bytes, image: Path) -> bytes:
        """The kernel inside the image `data`, which was read from `image`, as QEMU takes it.

        Raises LabError when it is no image, or is damaged; MissingTool when its packing needs a
        program that is not installed.
        """
        ...

    # -- what QEMU says of it --------------------------------------------------------------------

    @property
    def program_counter(self) -> re.Pattern[str]:
        """Where `info registers` has the address of a processor's next instruction, in hexadecimal;
        one match for each processor."""
        ...

    @property
    def halted(self) -> re.Pattern[str] | None:
        """What it says of a processor that waits for an interrupt; None if it does not tell."""
        ...

    @property
    def idle(self) -> re.Pattern[str] | None:
        """What it says of a processor that waits for an interrupt and would take one: Linux has
        nothing to do. A processor that was stopped for good takes none. None if it does not
        tell."""
        ...

    @property
    def deaths(self) -> Sequence[Death]:
        """Deaths of a guest that the emulator is known to cause."""
        ...
