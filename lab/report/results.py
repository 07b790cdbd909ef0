# SPDX-License-Identifier: MIT
"""Where a run's files go: lab-results/<UTC time>-<kernel>/, the newest also as `latest`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from ..errors import LabError


def new_directory(base: Path, kernel: str) -> Path:
    """A fresh directory for a run of now; two runs within one second get two directories.

    Raises LabError where none can be made.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        return _new(base, kernel)
    except OSError as error:
        raise LabError(
            f"the results of this run cannot be written to {base}: {error.strerror}",
            hint="name another directory with --lab-results",
        ) from error


def _new(base: Path, kernel: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in count(1):
        path = base / (f"{stamp}-{kernel}" + (f"-{number}" if number > 1 else ""))
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() ended")


def point_latest(directory: Path) -> None:
    """Let `latest` beside it name this directory, without a moment in which it names nothing."""
    link = directory.with_name("latest")
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a run that was killed here and had our number
    fresh.symlink_to(directory.name)
    fresh.replace(link)
