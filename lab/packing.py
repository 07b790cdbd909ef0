# SPDX-License-Identifier: MIT
"""What kernels and their modules are packed with, and how it comes off."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
import zlib
from pathlib import Path

from . import tools
from .errors import LabError

_DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error)


def unpack_payload(payload: bytes, image: Path) -> bytes:
    """The kernel in the packed part of the image read from `image`. Raises LabError when it is
    damaged, MissingTool when its packing needs a program that is not installed."""
    try:
        return _decompress(payload, image)
    except _DAMAGE as error:
        raise LabError(f"the payload of {image} is damaged: {error}") from error


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
    except _DAMAGE as error:
        raise LabError(f"the module {path} is damaged: {error}") from error
