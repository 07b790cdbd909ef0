# SPDX-License-Identifier: MIT
"""The flight recorder: what a ring was asked, and what it answered, before something went wrong.

With ``IOXIDE_RECORD=1`` each driver keeps its last 4,096 submissions and completions in memory,
which takes 128 KiB.  A stall, a fault and the end of a reactor by an exception log the last of them
in words.  With the path of a directory instead of 1 all of them are written into a file there as
well, which ``python -m ioxide record FILE`` reads.  With ``quiet`` they are kept and nothing is
logged: for tests, which ask for them by themselves.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from ioxide._ring import _core
from ioxide.errors import RecordError

__all__ = ["VARIABLE", "Entry", "RecordError", "entries", "in_words", "load", "save", "wanted"]

logger = logging.getLogger("ioxide")

VARIABLE = "IOXIDE_RECORD"
FORMAT, VERSION = "ioxide-record", 2
TOLD = 40
"""How many entries are logged."""
_OFF = ("", "0")
_QUIET = "quiet"

# struct iox_record_entry in _ring/plain/record.h
_ENTRY = struct.Struct("=qQiIHBBI")
_SUBMISSION, _COMPLETION = 1, 2
_MANY_SENT_BYTES = 1 << 31

# struct io_uring_sqe.flags: IOSQE_CQE_SKIP_SUCCESS
_SKIP_SUCCESS = 1 << 6

# struct io_uring_cqe.flags
_BUFFER, _MORE, _NOTIF, _BUF_MORE = 1 << 0, 1 << 1, 1 << 3, 1 << 4
_BUFFER_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission or completion."""

    at_ns: int
    """CLOCK_MONOTONIC, when its batch was submitted or taken in."""
    user_data: int
    result: int
    """Of a completion its result; of a submission its descriptor."""
    flags: int
    """Of a completion its flags; of a submission its length, in bytes."""
    ioprio: int
    what: int
    opcode: int
    sqe_flags: int = 0
    """Of a submission its IOSQE_*."""

    @property
    def is_submission(self) -> bool:
        return self.what == _SUBMISSION

    @property
    def kind(self) -> str:
        """What the operation is for: recv, send, accept, wake, poll or cancel."""
        number = self.user_data >> 56
        return _core.KINDS[number] if number < len(_core.KINDS) else _core.KINDS[0]

    @property
    def slot(self) -> int:
        """The number of its connection or listener, which is given to others afterwards."""
        return self.user_data & 0xFFFF_FFFF

    @property
    def generation(self) -> int:
        """Which of the connections or listeners that had this number."""
        return self.user_data >> 32 & 0xFF_FFFF

    @property
    def whose(self) -> str:
        if self.kind in ("recv", "send"):
            return f" of connection {self.slot} (generation {self.generation})"
        return f" of listener {self.slot}" if self.kind == "accept" else ""

    def describe(self) -> str:
        """In words, without the time."""
        if self.is_submission:
            on = f" on descriptor {self.result}" if self.result >= 0 else ""
            silent = ", completes only if it fails" if self.sqe_flags & _SKIP_SUCCESS else ""
            return f"submitted {self.kind}{self.whose}{on}{silent}"
        return f"completed {self.kind}{self.whose}: {', '.join(self._outcome())}"

    def _outcome(self) -> Iterable[str]:
        if self.result < 0 and not self.flags & _NOTIF:  # there it is a mask
            yield f"{errno.errorcode.get(-self.result, self.result)} ({os.strerror(-self.result)})"
        elif self.kind in ("recv", "send") and not self.flags & _NOTIF:
            yield f"{self.result} bytes"
        else:
            yield str(self.result)
        if self.flags & _BUFFER:
            yield f"buffer {self.flags >> _BUFFER_SHIFT}"
        for flag, words in (
            (_MORE, "more to come"),
            (_NOTIF, "notification"),
            (_BUF_MORE, "buffer goes on"),
        ):
            if self.flags & flag:
                yield words


def wanted() -> bool:
    """Whether drivers that are opened now keep a record."""
    return os.environ.get(VARIABLE, "") not in _OFF


def _directory() -> Path | None:
    value = os.environ.get(VARIABLE, "")
    return Path(value) if value not in (*_OFF, "1", _QUIET) else None


def entries(raw: bytes) -> list[Entry]:
    """What `record()` of the core has returned."""
    return [Entry(*values) for values in _ENTRY.iter_unpack(raw)]


def in_words(found: Sequence[Entry], *, last: int = TOLD) -> str:
    """The last of them, a line each, with the time before the very last in ms."""
    if not found:
        return "nothing was submitted and nothing completed"
    end = found[-1].at_ns
    lines = [f"{(one.at_ns - end) / 1e6:+12.3f} ms  {one.describe()}" for one in found[-last:]]
    if len(found) > last:
        lines.insert(0, f"{len(found) - last} before")
    return "\n".join(lines)


def save(path: Path, found: Sequence[Entry], about: Mapping[str, str]) -> None:
    """Write a file that `load()` reads; raises OSError."""
    text = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "kernel": os.uname().release,
            "about": dict(about),
            "fields": [field.name for field in fields(Entry)],
            "entries": [astuple(one) for one in found],
        }
    )
    path.write_text(text + "\n")


def load(path: Path) -> tuple[list[Entry], dict[str, Any]]:
    """The entries of a file, and what else it says.

    Raises OSError, and `RecordError`, whose sentence names the file.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no record: it is not JSON ({error})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RecordError(f"{path} is no record: it does not say {FORMAT!r}")
    if found.get("version") != VERSION:
        raise RecordError(
            f"{path} is a record of version {found.get('version')!r}, this ioxide reads {VERSION}"
        )
    names = [field.name for field in fields(Entry)]
    rows = found.get("entries")
    if found.get("fields") != names or not isinstance(rows, list):
        raise RecordError(f"{path} is a record whose entries have other fields than {names}")
    for number, row in enumerate(rows):
        if not (
            isinstance(row, list)
            and len(row) == len(names)
            and all(isinstance(value, int) and not isinstance(value, bool) for value in row)
            and row[names.index("what")] in (_SUBMISSION, _COMPLETION)
            and 0 <= row[names.index("user_data")] < 1 << 64
        ):
            raise RecordError(f"{path}: entry {number} is none: {row!r}")
    return [Entry(*row) for row in rows], found


_numbers = itertools.count(1)
_ended: deque[tuple[str, bytes]] = deque(maxlen=4)


def tell(name: str, raw: bytes, why: str) -> None:
    """Log the last of a driver's record, if it has one, and save all of it where that is asked."""
    if not raw or os.environ.get(VARIABLE) == _QUIET:
        return
    found = entries(raw)
    logger.error("%s: %s. The last of its ring:\n%s", name, why, in_words(found))
    directory = _directory()
    if directory is None:
        return
    path = directory / f"{name}-{os.getpid()}-{next(_numbers)}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save(path, found, {"name": name, "why": why, "at": time.strftime("%FT%TZ", time.gmtime())})
    except OSError as error:
        logger.error("%s=%s: the record was not written: %s", VARIABLE, directory, error)
    else:
        logger.error("All of it: python -m ioxide record %s", path)


def keep(name: str, raw: bytes) -> None:
    """Keep what a driver that is closed has recorded; the last few are kept."""
    if raw:
        _ended.append((name, raw))


def tell_ended(name: str, why: str) -> None:
    """As `tell()`, of a driver that is closed by now."""
    for ended_name, raw in list(_ended)[::-1]:
        if ended_name == name:
            tell(name, raw, why)
            return


def forget() -> None:
    """Drop what is kept of closed drivers."""
    _ended.clear()


def ended() -> list[tuple[str, list[Entry]]]:
    """The last few drivers that were closed, with their records."""
    return [(name, entries(raw)) for name, raw in list(_ended)]
