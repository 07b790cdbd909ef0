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
_MARK = re.compile(r"(?:\[[ \d.]+\](?:\[[^\]]*\])? ?)?lab: (?!init|agent|the agent ended)")
"""A line that the lab had the agent write: which test began there, whose name may say anything."""
_PANIC = re.compile(r"Kernel panic - not syncing: .*")


class Console:
    """A console's file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, raw: bool = False) -> bytes:
        """All complete lines so far, without the carriage returns of a serial line; with `raw` the
        file as it is."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        return data if raw else data[: data.rfind(b"\n") + 1].replace(b"\r", b"")

    def text(self) -> str:
        """Everything so far, without carriage returns."""
        return self.read(raw=True).replace(b"\r", b"").decode(errors="replace")

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
        """The line that says why the guest died, empty if none does: of those behind the last mark,
        since it outlived what was said before."""
        lines = self.text().splitlines()
        last = max((n for n, line in enumerate(lines) if _MARK.match(line)), default=-1)
        text = "\n".join(lines[last + 1 :])
        matches = [pattern.search(text) for pattern in _CAUSES]
        cause = next((match[0].strip() for match in matches if match), "")
        panic = _PANIC.search(text)
        words = [cause, panic[0].strip() if panic else ""]
        return "; ".join(word for word in words if word)
