# SPDX-License-Identifier: MIT
"""What a kernel is to the lab, and what of it lies on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kernel:
    """One released kernel. Identity is (upstream, package, release): Debian's 6.1 calls itself
    `6.1.0-50-cloud-amd64` and is 6.1.176, and one upstream version exists in several packagings.
    """

    series: str
    """First two numbers of the upstream version: "6.12"."""
    upstream: str
    """Upstream version: "6.12.107"."""
    package: str
    """The distribution's package version: "6.12.107-1"."""
    release: str
    """What `uname -r` says in it: "6.12.107+deb13-cloud-amd64"."""
    source: str
    """Name of the source module that delivers it: "debian"."""
    locked: bool
    """True when kernels.lock names this very package."""
    verified_by: str
    """Which key or hash vouches for its files, in words."""

    def __str__(self) -> str:
        lock = "" if self.locked else ", not the locked release"
        return f"{self.release} (upstream {self.upstream}, package {self.package}{lock})"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file a source delivers, and what it must be."""

    path: str
    """Where the source has it, relative to the source's own root."""
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Release:
    """A kernel together with the files a source delivers for it: one entry of kernels.lock."""

    kernel: Kernel
    suite: str
    """Which part of the source offers it, for Debian the suite."""
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """The unpacked files of one kernel; all were compared with recorded hashes when handed out."""

    kernel: Kernel
    vmlinuz: Path
    vmlinux: Path
    """The uncompressed ELF, which QEMU starts by PVH."""
    config: Path
    modules: Path
    """`.../lib/modules/<release>` with modules.dep in it."""


def version_key(version: str) -> tuple[int, ...]:
    """Sort key for upstream versions: 6.12.9 comes before 6.12.107."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def series_of(upstream: str) -> str:
    """The series an upstream version belongs to: "6.12.107" -> "6.12"."""
    return ".".join(upstream.split(".")[:2])
