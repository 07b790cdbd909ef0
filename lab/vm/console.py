# SPDX-License-Identifier: MIT
"""What a guest's kernel wrote on its console, and why it died by that."""

from __future__ import annotations

import re
from pathlib import Path

_CAUSES = (
    # Most telling first; the first that is there is told, and the panic it led to with it.
    re.compile(r"lab: (?:init|agent): .*"),
    re.compile(r"(?:BUG|Oops|double fault|general protection fault)\b.*"),
    re.compile(r"Out of memory: .*|VFS: Unable to mount root.*"),
    re.compile(r"lab: the agent ended .*"),
)
_PANIC = re.compile(r"Kernel panic - not syncing: .*")
_INT3 = re.compile(r"Oops: int3")


class Console:
    """A console's file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self) -> int:
        """Bytes written so far, a place for `read` to begin at."""
        return self.path.stat().st_size

    def read(self, begin: int = 0) -> bytes:
        """All complete lines so far, without the carriage returns of a serial line."""
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                data = file.read()
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
        last = text.splitlines()[-lines:]
        return "\n".join("".join(c for c in line if c.isprintable()) for line in last)

    def reason(self) -> str:
        """The line that says why the guest died, empty if none does."""
        text = self.read().decode(errors="replace")
        matches = [pattern.search(text) for pattern in _CAUSES]
        cause = next((match[0].strip() for match in matches if match), "")
        panic = _PANIC.search(text)
        words = [cause, panic[0].strip() if panic else ""]
        return "; ".join(word for word in words if word) + _known_cause(text)


def _known_cause(text: str) -> str:
    # lab-facts: QEMU 7.2 with -smp 2 and multi-threaded TCG runs the breakpoint byte of a static
    # key while another CPU patches it; 3 of 50 boots of 7.1 and 7.2 kernels died so.
    if _INT3.search(text):
        return " (QEMU before 10 can cause this under emulation with two CPUs)"
    return ""
