# SPDX-License-Identifier: MIT
"""Text of tests and kernels for a terminal, without the control characters in it."""

from __future__ import annotations

import os
import re
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..facts.verdicts import printable

_HIDDEN = "\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_CONTROLS = re.compile(f"[\x00-\x1f\x7f-\x9f{_HIDDEN}]")
# Colours (SGR) stay: pytest's own are among them, and they end with pytest's next.
_BUT_COLOURS = re.compile(
    f"(\x1b\\[[0-9;:]*m|\r\n)|[\x00-\x08\x0b-\x1f\x7f-\x9f{_HIDDEN}]", re.ASCII
)


def safe(text: str, encoding: str | None) -> str:
    """The text, which is one line, with escapes for what a terminal would obey or not show."""
    return printable(_CONTROLS.sub(_escape, text), encoding)


class Harmless:
    """A terminal that shows what a test has painted, cursor movements and all, as escapes. Colours
    and line ends remain."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """As a file's."""
        self._file.write(_BUT_COLOURS.sub(lambda found: found[1] or _escape(found), text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def nothing_dropped(terminal: int) -> Iterator[None]:
    """Within the block a Ctrl-C leaves what was written to this terminal and is still to be shown.

    The kernel drops that otherwise (isig() in n_tty.c, 6.18), all of it or from somewhere on, and
    who moves the cursor does not know where it stands then. A process that is killed in the block
    leaves the terminal so, which changes nothing else.
    """
    before = _set_flag(terminal, on=True)
    try:
        yield
    finally:
        if before is False:
            _set_flag(terminal, on=False)


def _set_flag(terminal: int, *, on: bool) -> bool | None:
    """Set NOFLSH or clear it: what it was; None if that is not known and nothing was changed."""
    # In the background a change of settings would stop the run (SIGTTOU, termios(3)).
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with suppress(termios.error, OSError):
            if on and os.tcgetpgrp(terminal) != os.getpgrp():
                return None  # somebody else's settings
            settings = termios.tcgetattr(terminal)
            before = bool(settings[3] & termios.NOFLSH)
            if before is not on:
                settings[3] ^= termios.NOFLSH
                termios.tcsetattr(terminal, termios.TCSANOW, settings)
            return before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return None


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
