# SPDX-License-Identifier: MIT
"""What every source of kernels can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .catalogue import Series
from .model import Release, RemoteFile


class SourceUnreachable(Exception):
    """The source did not answer, or not properly; the message is a sentence about it."""


class FileGone(SourceUnreachable):
    """The source answered, and has this file no more."""


class Source(Protocol):
    """One place kernels come from. All of it may be asked from several processes at once."""

    name: str

    def offers(self, series: Series) -> tuple[Release, ...]:
        """What the source has of a series now, newest first, as its signed metadata says.

        Raises SourceUnreachable.
        """
        ...

    def download(self, file: RemoteFile, into: Path) -> None:
        """Write the file's bytes to `into`. The caller compares the hash.

        Raises FileGone or SourceUnreachable.
        """
        ...

    def unpack(self, packages: Sequence[Path], release: str, tree: Path) -> None:
        """Unpack packages into `tree` as `vmlinuz`, `config` and `lib/modules/RELEASE`.

        Raises LabError when they do not hold these.
        """
        ...
