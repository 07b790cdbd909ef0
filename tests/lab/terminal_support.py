# SPDX-License-Identifier: MIT
"""A run of the lab in a terminal, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyte
from rich.cells import cell_len

from lab.report.screen import MARGIN
from tests.lab.suite_support import Little

LIMIT_SECONDS = 60.0
"""What a person would not wait for any longer."""
QUIET_S = 0.05
"""Nothing came for so long: what stands there is what a person sees."""
FAKES = ("-p", "tests.lab.hostile.plugin")
BAR = re.compile(r" *\d+/\d+  [━─]+  \d+:\d\d(, about \d+:\d\d left)?")
# Between two tests a guest's line names none.
GUEST = re.compile(r"   \d  6\.\d+\.\d+ +\d+:\d\d(  .*)?")


class Terminal:
    """An emulated terminal with a Python in it, whose session it is, as in a window of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.patience_s = LIMIT_SECONDS
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
        self.raw = b""
        """All that came."""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = os.openpty()
        self._set_size(columns, lines)
        self.before = termios.tcgetattr(self._ours)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, *command],
            cwd=cwd,
            env=dict(env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        self._theirs = theirs

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    # -- what a person does ------------------------------------------------------------------

    def type(self, keys: str) -> None:
        """Type these keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window larger or smaller; the program is told by SIGWINCH."""
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    # -- what a person sees ------------------------------------------------------------------

    def now(self) -> list[str]:
        """What stands on the screen."""
        return [line.rstrip() for line in self.screen.display]

    def all(self) -> list[str]:
        """What stands there, and what has scrolled away."""
        gone = [
            "".join(row[column].data for column in sorted(row)).rstrip()
            for row in self.screen.history.top
        ]
        return [*gone, *self.now()]

    def until(self, seen: Callable[[], object]) -> None:
        """Look until this is seen whenever the program is quiet; AssertionError if it never is."""
        deadline = time.monotonic() + self.patience_s
        while not seen():
            assert time.monotonic() < deadline, "\n".join(self.all())
            assert self._look(), "it ended\n" + "\n".join(self.all())

    def until_shown(self, pattern: str) -> None:
        """Look until this is on the screen."""
        self.until(lambda: re.search(pattern, "\n".join(self.now())))

    def end(self, seen: Callable[[], None] = lambda: None) -> int:
        """Look to the program's end, and each time that it is quiet at what is `seen`; the exit
        status."""
        deadline = time.monotonic() + self.patience_s
        while self._look():
            assert time.monotonic() < deadline, "\n".join(self.all())
            seen()
        return self.process.wait(timeout=self.patience_s)

    def attributes(self) -> list[object]:
        """The terminal's settings."""
        return termios.tcgetattr(self._ours)

    def _look(self) -> bool:
        """Take in what comes until nothing does for a moment; whether the program runs."""
        while select.select([self._ours], [], [], QUIET_S)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # pty(7): EIO once nobody has the other side open
                return False
            self.raw += data
            self._stream.feed(data)
        return self.process.poll() is None


@dataclass
class Scene:
    """A little repository, and how runs in it begin."""

    little: Little
    more: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        *arguments: str,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> Terminal:
        """`lab test` with made-up guests, or another module, in a terminal of this size."""
        told = self.little.environment(TERM="xterm-256color", LC_ALL="C.UTF-8") | self.more
        # Nothing else knows the window's size.
        kept = {k: v for k, v in told.items() if k not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
        return Terminal(
            ["-m", *(command or ("lab", "test", *FAKES, *arguments))],
            cwd=str(self.little.root),
            env={**kept, **(env or {})},
            columns=columns,
            lines=lines,
        )


def squeezed(lines: list[str]) -> str:
    """The text without spaces and line ends, which wrapping moves."""
    return "".join("".join(lines).split())


def pictured(terminal: Terminal) -> list[str]:
    """The lines of the live screen that stand there now."""
    now = terminal.now()
    bars = [number for number, line in enumerate(now) if BAR.fullmatch(line)]
    if not bars:
        return []
    return [line for line in now[bars[0] :] if line]


def guests_shown(terminal: Terminal) -> int:
    """How many guests the live screen shows now; AssertionError if there is anything in it that
    does not belong there."""
    if not (shown := pictured(terminal)):
        return 0
    assert 1 == sum(bool(BAR.fullmatch(line)) for line in terminal.now()), terminal.now()
    guests = [line for line in shown if GUEST.fullmatch(line)]
    others = [line for line in shown[1:] if line not in guests]
    assert len(others) <= 1, shown  # the counts, or the run's phase
    columns = terminal.screen.columns
    assert all(cell_len(line) <= columns - MARGIN for line in shown), shown
    return len(guests)
