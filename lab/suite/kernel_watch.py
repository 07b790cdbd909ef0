# SPDX-License-Identifier: MIT
"""What one guest's kernel says, from its first line to its last: each line is heard once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import GuestLost, LabError
from ..facts.evidence import Part
from ..remote.log import Log
from ..rules import dmesg
from ..rules.dmesg import Allowance, Splat
from ..vm import Guest
from ..vm.emulator import first_sign

_REMEMBERED = 4096
"""So many of the records that were read last are known again on the console of a guest that died:
what a console was behind with."""
_CONSOLE_LINE = re.compile(r"(?:\[ *(?P<time>\d+\.\d+)\](?:\[[^\]]*\])? )?(?P<text>.*)")
_DROPPED = re.compile(r"\*\* (\d+) printk messages dropped \*\*")


@dataclass(slots=True)
class Heard:
    """What a piece of a kernel's log comes to."""

    splats: list[Splat] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    """What of it was lost unread, as sentences: it may have been a complaint."""
    part: Part | None = None
    """Where it is in kernel.log."""

    def then(self, later: Heard) -> Heard:
        """This, and what came behind it; its part has what stands between the two as well."""
        part = later.part or self.part
        if self.part is not None and later.part is not None and self.part.file == later.part.file:
            part = Part(self.part.file, self.part.begin, later.part.end)
        return Heard([*self.splats, *later.splats], [*self.gaps, *later.gaps], part)


class KernelWatch:
    """Listens to one guest's kernel.

    While the guest lives its log is read as numbered records; of one that died there is only its
    console.
    """

    def __init__(self, guest: Guest, allowed: Sequence[Allowance] = ()) -> None:
        """`allowed` are the repository's own allowances."""
        self._allowed = allowed
        self.guest = guest
        self.log = Log(guest.console.with_name("kernel.log"))
        self._known: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._console_read = 0
        self._over = False

    def cut(self, mark: str = "") -> Heard:
        """What was written since the last cut; `mark` is written into the log behind it. Raises
        GuestLost."""
        size = self.guest.console.stat().st_size
        piece = self.guest.read_kernel_log(f"{dmesg.MARK} {mark}".rstrip() if mark else "")
        before, self._console_read = self._console_read, size
        self._known.extend(_key(line) for r in piece.records for line in r.line.splitlines())
        part = self._write("".join(f"{record.line}\n" for record in piece.records))
        heard = Heard(
            dmesg.scan_records(piece.records, self.guest.kernel, self._allowed),
            [str(gap) for gap in piece.gaps],
            part,
        )
        if piece.gaps:
            # What was overwritten unread may still stand on the console.
            lines = [line for line in self._console(before, size) if not dmesg.is_mark(line)]
            words = "(records were lost; the console's lines)\n"
            more = self._write(words + "\n".join([*lines, ""]))
            heard.part = Part(part.file, part.begin, more.end) if part and more else None
            heard.splats += dmesg.scan_lines(lines, self.guest.kernel, self._allowed)
        return heard

    def aside(self) -> str:
        """What was written since the last cut, which somebody of us has asked the kernel for: it is
        kept, and nothing in it is a complaint. Raises GuestLost."""
        self._console_read = self.guest.console.stat().st_size
        piece = self.guest.read_kernel_log()
        self._known.extend(_key(line) for r in piece.records for line in r.line.splitlines())
        text = "".join(f"{record.line}\n" for record in piece.records)
        self._write(text)
        return text + "".join(f"({gap})\n" for gap in piece.gaps)

    def rest(self) -> Heard:
        """What a guest that died wrote on its console since the last cut; nothing the second time.

        From a line on by which its emulator is known to kill it nothing counts.
        """
        if self._over:
            return Heard()
        self._over = True
        whole = self._console(self._console_read)
        words = "(the guest died; from here on its console)\n"
        part = self._write(words + "\n".join([*whole, ""]))
        lines = [line for line in whole if not dmesg.is_mark(line)]
        if (sign := first_sign(lines, self.guest.deaths)) is not None:
            lines = lines[: sign[0]]
        gaps = [
            f"the console of the guest that died lacks {match[1]} lines"
            for line in whole
            for match in _DROPPED.finditer(line)
        ]
        return Heard(dmesg.scan_lines(lines, self.guest.kernel, self._allowed), gaps, part)

    def last(self) -> Heard:
        """What was written since the last cut, whether the guest lives or not."""
        try:
            return self.cut()
        except GuestLost:
            return self.rest()
        except LabError as error:
            # The agent lives and cannot read the log: its console is all there is.
            heard = self.rest()
            heard.gaps.append(f"the end of the kernel's log is lost: {error}")
            return heard

    def _console(self, begin: int, end: int | None = None) -> list[str]:
        """The console's lines from one place to another that are not among the records read."""
        known = set(self._known)
        log = self.guest.console_log()
        # The console may have been in the middle of a line.
        begin = log.rfind(b"\n", 0, begin) + 1
        text = log[begin:end].replace(b"\r", b"").decode("utf-8", "backslashreplace")
        return [line for line in text.splitlines() if _key(line) not in known]

    def _write(self, text: str) -> Part | None:
        return self.log.append(text.encode("utf-8", "backslashreplace"))


def said_unborn(error: LabError, consoles: Iterable[Path]) -> bytes:
    """What the kernel of a guest that never came up said on its console, which is all there is to
    hear; nothing if its emulator killed it."""
    if isinstance(error, GuestLost):
        return b"" if error.excuse else error.console_tail.encode("utf-8", "backslashreplace")
    return b"\n".join(console.read_bytes() for console in consoles)


def _key(line: str) -> tuple[str, str]:
    match = _CONSOLE_LINE.fullmatch(line.strip())
    return (match["time"] or "", match["text"]) if match else ("", line)
