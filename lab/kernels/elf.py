# SPDX-License-Identifier: MIT
"""The uncompressed kernel inside a bzImage.

QEMU starts the ELF by PVH, which saves firmware and the guest's own unpacking: three seconds
under emulation (measured on 6.12 with QEMU 7.2).
"""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
import zlib
from pathlib import Path

from .. import tools
from ..errors import LabError

# Offsets of the x86 boot protocol, Documentation/arch/x86/boot.rst in the kernel.
_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248


def extract_vmlinux(image: Path, into: Path) -> None:
    """Write the ELF inside `image` to `into`.

    Raises LabError when `image` is no bzImage or its payload is damaged, MissingTool when the
    payload's compression needs a program that is not installed.
    """
    data = image.read_bytes()
    if len(data) < 0x250 or data[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise LabError(f"{image} is not an x86 bzImage: no HdrS at 0x202")
    sectors = data[_SETUP_SECTORS] or 4  # boot protocol: 0 means 4
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = (sectors + 1) * 512 + offset
    payload = data[start : start + length]
    if len(payload) != length or length < 16:
        raise LabError(f"{image} is cut short: its payload should have {length} bytes")
    try:
        elf = _decompress(payload, image)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise LabError(f"the payload of {image} is damaged: {error}") from error
    if elf[:4] != b"\x7fELF":
        raise LabError(f"the payload of {image} is not an ELF file")
    into.write_bytes(elf)


def _decompress(payload: bytes, image: Path) -> bytes:
    # Except for gzip, the kernel's build appends the unpacked size as four bytes that are not
    # part of the compressed stream (scripts/Makefile.lib, size_append).
    stream, (size,) = payload[:-4], struct.unpack("<I", payload[-4:])
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        elf = _through("zstd", stream, image)
    elif payload.startswith(b"\x02\x21\x4c\x18"):
        elf = _through("lz4", stream, image)
    elif payload.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        elf = lzma.decompress(stream)
    else:
        raise LabError(f"the payload of {image} starts with {payload[:4].hex()}, unknown packing")
    if len(elf) != size:
        raise LabError(f"the payload of {image} unpacks to {len(elf)} bytes, expected {size}")
    return elf


def _through(program: str, stream: bytes, image: Path) -> bytes:
    done = subprocess.run(
        [str(tools.find(program)), "-dc"], input=stream, capture_output=True, check=False
    )
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()
        raise LabError(f"{program} cannot unpack {image}: {complaint}")
    return done.stdout


def decompress_module(path: Path) -> bytes:
    """A kernel module's bytes, unpacked if its file is .xz, .zst or .gz. Raises LabError."""
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".xz":
                return lzma.decompress(data)
            case ".zst":
                return _through("zstd", data, path)
            case ".gz":
                return gzip.decompress(data)
            case _:
                return data
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise LabError(f"the module {path} is damaged: {error}") from error
