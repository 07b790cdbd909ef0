# SPDX-License-Identifier: MIT
"""What a guest's kernel wrote on its console, and why it died by that."""

from __future__ import annotations

import re
from pathlib import Path

_STAMP = re.compile(rb"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?")

_REASONS = (
    re.compile(r"Kernel panic - not syncing: .*"),
    re.compile(r"lab: init: .*"),
    re.compile(r"lab: agent: .*"),
    re.compile(r"lab: the agent ended .*"),
    re.compile(r"Oops: .*|BUG: .*|double fault: .*|general protection fault.*"),
    re.compile(r"Internal error: .*|VFS: Unable to mount root.*|Out of memory: .*"),
)
"""Most telling first."""

_INT3 = re.compile(r"Oops: int3")


class Console:
    """A console's file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """All complete lines so far, without the carriage returns of a serial line."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1].replace(b"\r", b"")

    def tail(self, lines: int = 25) -> str:
        """The last lines, incomplete last one included, fit to be printed."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ""
        text = data.replace(b"\r", b"").decode(errors="replace")
        return "\n".join(
            "".join(c for c in l if c.isprintable()) for l in text.splitlines()[-lines:]
        )

    def reason(self) -> str:
        """The line that says why the guest died, empty if none does."""
        text = _printable(self.read())
        for pattern in _REASONS:
            if match := pattern.search(text):
                return match[0].strip() + _known_cause(text)
        return ""


def _printable(data: bytes) -> str:
    return data.decode(errors="replace")


def _known_cause(text: str) -> str:
    # lab-facts: QEMU 7.2 with -smp 2 and multi-threaded TCG runs the breakpoint byte of a static
    # key while another CPU patches it; 3 of 50 boots of 7.1 and 7.2 kernels died so.
    if _INT3.search(text):
        return " (QEMU before 10 can cause this under emulation with two CPUs)"
    return ""


def without_stamp(line: bytes) -> bytes:
    """A console line without the kernel's time stamp."""
    return _STAMP.sub(b"", line)
