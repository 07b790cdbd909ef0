# SPDX-License-Identifier: MIT
"""x86-64: the one file that knows it."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

from .. import packing
from ..errors import LabError
from .model import Death, Entry, Version

# Offsets of the x86 boot protocol, Documentation/arch/x86/boot.rst in the kernel.
_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_VERSION = 0x20E
"""The place of the version's text, less 0x200."""
_PAYLOAD = 0x248
_HEAD = 1 << 16
"""The version's text is in the setup code, which has 64 sectors at most."""
_E_MACHINE = 18
"""Where an ELF file has its `e_machine`, two bytes (elf(5))."""

PVH = Entry("PVH", "by PVH, as an uncompressed ELF", unpacked=True)
"""QEMU starts an uncompressed ELF by its PVH note (XEN_ELFNOTE_PHYS32_ENTRY: 32-bit protected mode,
no firmware), which spares a guest the menu and the unpacking: 3 s under emulation (6.12, QEMU
7.2)."""
BZIMAGE = Entry("BZIMAGE", "as a bzImage", unpacked=False)
"""Some kernels do not come up by PVH: a 6.11.11 built from vanilla sources hangs without one byte
on its console, and boots as a bzImage at once."""

_SLOW_UNDER_TCG = ",-erms,-fsrm,-la57"
"""A processor that calls its string instructions fast makes kernel and glibc copy and clear with
`rep movsb` and `rep stosb`, which TCG runs byte by byte. Without these flags, and with page tables
of four levels, clearing 4 MiB took 0.5 ms instead of 9, a page fault a third of its time (QEMU 7.2,
Linux 6.12)."""


class X86_64:
    """See `Arch`."""

    name = "x86_64"
    debian = "amd64"
    qemu = "qemu-system-x86_64"
    qemu_package = "qemu-system-x86"
    qemu_fedora = "qemu-system-x86-core"
    elf_machine = 62
    machine = "q35"
    kvm_cpu = "host"
    transport = "pci"
    virtio_modules = ("virtio_pci",)
    console = "ttyS0"
    console_cmdline = ("8250.nr_uarts=1",)
    cmdline = ("tsc=reliable", "no_timer_check")
    images = ("vmlinuz*", "bzImage*")
    image_hint = "it is called bzImage in a build tree and vmlinuz when installed"
    kbuild_target = "bzImage"
    kbuild_image = "arch/x86/boot/bzImage"
    kconfig = (
        "CONFIG_64BIT=y",
        "CONFIG_ACPI=y",
        "CONFIG_HYPERVISOR_GUEST=y",
        "CONFIG_KVM_GUEST=y",
        "CONFIG_PARAVIRT=y",
        "CONFIG_PVH=y",
    )
    entries = (PVH, BZIMAGE)
    program_counter = re.compile(r"\b[RE]IP=([0-9a-fA-F]+)")
    halted = re.compile(r"\bHLT=1\b")
    # Bit 9 of RFLAGS, IF: Linux's idle task halts with it set (sti; hlt), a kernel that gives up
    # (early_fixup_exception() and the like) without.
    idle = re.compile(r"\b[RE]FL=[0-9a-fA-F]*[2367abefABEF][0-9a-fA-F]{2}\b.*\bHLT=1\b")
    deaths = (
        Death(
            re.compile(r"Oops: int3"),
            (10, 0, 0),
            2,
            # See `tcg_options`.
            "QEMU before 10 can cause this under emulation with two processors",
        ),
    )

    def tcg_cpu(self, qemu: Version) -> str:
        """See `Arch`."""
        # QEMU 7.2's TCG corrupts EFLAGS on cmpxchg16b, which SLUB's free list uses: 8 of 10 runs of
        # 6.12 crashed at random with -cpu max, none with this CPU feature off, none with QEMU 10.
        wrong = "" if qemu >= (10, 0, 0) else ",-cx16"
        return f"max{wrong}{_SLOW_UNDER_TCG}"

    def tcg_options(self, qemu: Version, cpus: int) -> str:
        """See `Arch`."""
        # Multi-threaded TCG of QEMU 7.2 runs code another CPU is just patching: 3 of 50 boots of
        # 7.1 and 7.2 kernels died with "Oops: int3", none of 16 with thread=single.
        return ",thread=single" if qemu < (10, 0, 0) and cpus > 1 else ""

    def version_text(self, image: BinaryIO) -> str | None:
        """See `Arch`."""
        head = image.read(_HEAD)
        if head[_MAGIC : _MAGIC + 4] != b"HdrS":
            return None
        (offset,) = struct.unpack_from("<H", head, _VERSION)
        return head[offset + 0x200 :].split(b"\0", 1)[0].decode(errors="replace")

    def unpacked(self, data: bytes, image: Path) -> bytes:
        """See `Arch`."""
        if len(data) < 0x250 or data[_MAGIC : _MAGIC + 4] != b"HdrS":
            raise LabError(f"{image} is not an x86 bzImage: no HdrS at 0x202")
        sectors = data[_SETUP_SECTORS] or 4  # boot protocol: 0 means 4
        offset, length = struct.unpack_from("<II", data, _PAYLOAD)
        start = (sectors + 1) * 512 + offset
        payload = data[start : start + length]
        if len(payload) != length or length < 16:
            raise LabError(f"{image} is cut short: its payload should have {length} bytes")
        elf = packing.unpack_payload(payload, image)
        if elf[:4] != b"\x7fELF":
            raise LabError(f"the payload of {image} is not an ELF file")
        (machine,) = struct.unpack_from("<H", elf, _E_MACHINE)
        if machine != self.elf_machine:
            raise LabError(
                f"the payload of {image} is an ELF file of machine {machine}, not "
                f"{self.elf_machine} ({self.name}): a 32-bit kernel, perhaps"
            )
        return elf
