# SPDX-License-Identifier: MIT
"""Where a run's files go: lab-results/<UTC time>-<kernel>/, the newest also as `latest`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import count
from pathlib import Path


def new_directory(base: Path, kernel: str) -> Path:
    """A fresh directory for a run of now; two runs within one second get two directories."""
    base.mkdir(parents=True, exist_ok=True)
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
    fresh.symlink_to(directory.name)
    fresh.replace(link)
