# SPDX-License-Identifier: MIT
"""The files of a kernel: what a source delivers, and what lies on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..facts.kernel import Kernel, age_key


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file a source delivers, and what it must be."""

    path: str
    """Where the source has it, relative to the source's own root."""
    size: int
    """In bytes; 0 if signed metadata does not tell."""
    sha256: str
    """Empty if signed metadata does not tell; the first download then sets both, see `store`."""

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
    """The kernel unpacked, as QEMU starts it without firmware."""
    config: Path
    modules: Path
    """`.../lib/modules/<release>` with modules.dep in it."""


def newest_first(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Releases sorted by upstream version, then packaging, newest first."""
    return tuple(sorted(releases, key=lambda r: age_key(r.kernel), reverse=True))
