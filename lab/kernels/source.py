# SPDX-License-Identifier: MIT
"""What every source of kernels can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..facts.kernel import Kernel
from .model import Release, RemoteFile


class SourceUnreachable(Exception):
    """The source did not answer, or not properly; the message is a sentence about it."""


class FileGone(SourceUnreachable):
    """The source answered, and has this file no more."""


class Source(Protocol):
    """One place kernels come from. All of it may be asked from several processes at once."""

    name: str

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """Every release the source offers, newest first, as its signed metadata says.

        Unless `fresh`, an answer of the last hours may stand for the source's own. Raises
        SourceUnreachable.
        """
        ...

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """The releases a name fits (see `named`), newest first; as `listing` otherwise."""
        ...

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """Write the file's bytes to `into`. The caller compares the hash.

        Raises FileGone or SourceUnreachable.
        """
        ...

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Unpack packages into `tree` as `vmlinuz`, `config` and `lib/modules/RELEASE`.

        Raises LabError when they do not hold these.
        """
        ...


def named(kernel: Kernel, wanted: str) -> bool:
    """Whether `wanted` is a name of this kernel: its series, upstream version, package version or
    what `uname -r` says in it."""
    return wanted in (kernel.series, kernel.upstream, kernel.package, kernel.release)
