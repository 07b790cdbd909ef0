# SPDX-License-Identifier: MIT
"""The kernel's file system for debugging: settings that a test in a guest needs."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/kernel/debug")


def mounted(name: str) -> Path:
    """The file or directory `name`; the file system is mounted if it is not. Raises OSError."""
    if not (ROOT / name).exists():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"debugfs", str(ROOT).encode(), b"debugfs", 0, None):
            number = ctypes.get_errno()
            raise OSError(number, f"mounting debugfs: {os.strerror(number)}")
    return ROOT / name


def warn_again() -> None:
    """Have the kernel complain again where it does so once since its boot (WARN_ON_ONCE), if it
    can: what has complained before may be another reproducer."""
    with suppress(OSError):
        mounted("clear_warn_once").write_text("1")
