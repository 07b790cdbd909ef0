# SPDX-License-Identifier: MIT
"""The kernel's log as /dev/kmsg gives it: numbered records, so that a lost one is noticed.

The form is that of Documentation/ABI/testing/dev-kmsg: `priority,number,microseconds,flags;text`,
then lines that begin with a space (SUBSYSTEM=, DEVICE=). In the text the kernel writes bytes that
are not printable as `\\xNN`, a line break among them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_HEADER = re.compile(rb"(\d+),(\d+),(\d+),([^,;]*)(?:,[^;]*)?;(.*)", re.DOTALL)
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_FRAGMENT = b"c"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a kernel's log."""

    number: int
    """Counted by the kernel from 0, without a gap."""
    priority: int
    micros: int
    """Microseconds since the kernel started."""
    fragment: bool
    """It continues an earlier record, which another processor's words kept it from joining."""
    text: str
    """May hold line breaks."""

    @property
    def from_kernel(self) -> bool:
        """Whether the kernel itself said it. A process that writes to /dev/kmsg cannot look like
        it: what has facility 0 there is made LOG_USER (devkmsg_write, 6.12)."""
        return self.priority >> 3 == 0

    @property
    def line(self) -> str:
        """As a console shows it, with the time."""
        return f"[{self.micros // 1_000_000:5}.{self.micros % 1_000_000:06}] {self.text}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that the kernel threw away before they were read."""

    first: int
    last: int

    def __str__(self) -> str:
        count = self.last - self.first + 1
        return f"records {self.first} to {self.last} of the kernel's log are lost ({count})"


@dataclass(frozen=True, slots=True)
class Piece:
    """What a kernel wrote since it was last asked."""

    records: Sequence[Record] = ()
    gaps: Sequence[Gap] = ()


class Reader:
    """Cuts what an agent read into records, and sees to their numbers."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, data: bytes) -> Piece:
        """The records in `data`, which holds whole ones. Raises ValueError with a sentence."""
        records, gaps = [], []
        if data and not data.endswith(b"\n"):  # each read(2) of /dev/kmsg is one whole record
            raise ValueError(f"{data[-80:]!r}, which ends inside a record")
        for line in data.split(b"\n"):
            if not line or line.startswith(b" "):
                continue
            record = _record(line)
            if record.number < self._next:
                raise ValueError(f"record {record.number} where {self._next} was due")
            if record.number > self._next:
                gaps.append(Gap(self._next, record.number - 1))
            self._next = record.number + 1
            records.append(record)
        return Piece(records, gaps)


def _record(line: bytes) -> Record:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise ValueError(f"{line[:80]!r}, which is no record")
    priority, number, micros = (int(match[group]) for group in (1, 2, 3))
    text = _ESCAPED.sub(lambda escaped: bytes([int(escaped[1], 16)]), match[5])
    return Record(
        number, priority, micros, match[4] == _FRAGMENT, text.decode("utf-8", "backslashreplace")
    )
