# SPDX-License-Identifier: MIT
"""The live screen of a run: a bar over all, a line a guest, and above them what went wrong.

It stands in the last lines of a terminal. What is above it stays, and scrolls with everything that
was there before; when the run is over the screen is gone, and the report takes its place.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from ..facts.verdicts import Verdict, Weight, weight
from .progress import Guest, Progress
from .terminal import nothing_dropped, safe

if TYPE_CHECKING:
    from ..facts.records import Record

MARGIN = 4
"""Columns that stay free at the right: a terminal shows "^C" at the cursor, behind the last line,
and were there no room for it, the screen would be a line longer than is known."""
LEAST_BAR, MOST_BAR = 8, 40
"""Columns."""
MOST_KERNEL = 24
"""Columns of a kernel's name."""
_STYLES = {Weight.DISPROVES: "red", Weight.UNPROVES: "magenta"}


@dataclass(slots=True)
class _Line:
    """What a guest is at."""

    kernel: str
    phase: str
    test: str
    since: float


class _Terminal(Console):
    """rich's, for one terminal of ours."""

    def show_cursor(self, show: bool = True) -> bool:
        """The cursor is left alone: a run that is killed could not show it again."""
        del show
        return False

    @property  # type: ignore[misc]  # rich's may be set, and nobody sets ours
    def size(self) -> ConsoleDimensions:
        """The terminal's own, asked each time: COLUMNS in the environment does not change when a
        window does."""
        with suppress(OSError):
            size = os.get_terminal_size(self.file.fileno())
            if size.columns and size.lines:
                return ConsoleDimensions(size.columns, size.lines)
        return ConsoleDimensions(80, 24)


class Screen(Progress):
    """See the module. With pytest's -v each verdict and phase is a line above it, as without a
    terminal; with -q the guests have no lines."""

    def __init__(self, stream: TextIO, *, verbosity: int = 0) -> None:
        super().__init__()
        self._verbosity = verbosity
        self._encoding = stream.encoding
        self._stream = stream
        self._live: Live | None = None
        self._stack = ExitStack()
        self._over = False
        """Whether nothing may be painted, for good or for a while."""
        self._lines: dict[int, _Line] = {}
        self._phase = ""

    # -- what happens ------------------------------------------------------------------------

    def phase(self, text: str, guest: Guest | None = None, what: str = "") -> None:
        if guest is None:
            self._phase = text
        elif text:
            self._lines[guest.number] = _Line(guest.kernel, what, "", time.monotonic())
        self._start()
        # Of the run itself there are few, and one may say why there are fewer guests than asked.
        if guest is None or self._verbosity > 0:
            super().phase(text)

    def begin(self, name: str, guest: Guest | None = None, *, seconds: float = 0.0) -> None:
        super().begin(name, seconds=seconds)
        self._phase = ""
        if guest is not None:
            # Its kernel has a column of its own.
            test = name.removeprefix(f"{guest.kernel} ")
            self._lines[guest.number] = _Line(guest.kernel, "test", test, time.monotonic())
        self._start()

    def verdict(self, name: str, record: Record, guest: Guest | None = None) -> None:
        super().verdict(name, record)
        if guest is not None:
            self._lines[guest.number] = _Line(guest.kernel, "", "", time.monotonic())

    def gone(self, guest: Guest) -> None:
        self._lines.pop(guest.number, None)

    def line(self, text: str, verdict: Verdict | None = None) -> None:
        style = "" if verdict is None else _STYLES.get(weight(verdict), "")
        if verdict is not None and not style and self._verbosity <= 0:
            return  # the bar counts it
        self._print(Text(safe(text, self._encoding), style=style))

    @contextmanager
    def aside(self) -> Iterator[None]:
        before, self._over = self._over, True
        self._end()
        try:
            yield
        finally:
            self._over = before
            self._start()

    def stop(self) -> None:
        self._over = True
        self._end()

    # -- the terminal ------------------------------------------------------------------------

    def _start(self) -> Live | None:
        if self._live is None and not self._over:
            # A descriptor of its own: pytest redirects number 1 while it runs a test on the host.
            own = self._stack.enter_context(
                io.TextIOWrapper(
                    os.fdopen(os.dup(self._stream.fileno()), "wb"),
                    encoding=self._encoding,
                    errors="backslashreplace",
                )
            )
            self._stack.enter_context(nothing_dropped(own.fileno()))
            console = _Terminal(file=own, markup=False, emoji=False, highlight=False)
            self._live = Live(
                console=console,
                get_renderable=lambda: self._picture(console),
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._stack.enter_context(_log_above(self._print))
        return self._live

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            finally:
                stack, self._stack = self._stack, ExitStack()
                stack.close()

    def _print(self, text: Text) -> None:
        if (live := self._start()) is not None:
            live.console.print(text, soft_wrap=True)
        else:
            print(text.plain, file=self._stream, flush=True)

    # -- the picture -------------------------------------------------------------------------

    def _picture(self, console: Console) -> Group:
        size = console.size
        width = max(16, size.width - MARGIN)
        plain = not self._encoding.lower().startswith("utf")
        shown = [self._bar(width, plain=plain)]
        if self.verdicts or self._phase:
            words = safe(self.counts() if self.verdicts else self._phase, self._encoding)
            shown.append(Text(f"  {_cut(words, width - 2)}"))
        rows = sorted(self._lines.copy().items()) if self._verbosity >= 0 else []
        room = max(0, size.height - len(shown) - 2)
        if len(rows) > room:
            more = Text(f"  and {len(rows) - room + 1} more guests", style="dim")
            rows, tail = rows[: max(0, room - 1)], [more]
        else:
            tail = []
        kernel = min(
            MOST_KERNEL, width // 4, max((cell_len(one.kernel) for _, one in rows), default=0)
        )
        shown += [self._row(number, one, kernel, width) for number, one in rows]
        return Group(*(_one_line(one) for one in (*shown, *tail)))

    def _row(self, number: int, one: _Line, kernel: int, width: int) -> Text:
        head = f"  {number:>2}  {_padded(_cut(safe(one.kernel, self._encoding), kernel), kernel)}"
        now = time.monotonic()
        took = f"  {_clock(now - one.since):>6}  "
        left = width - cell_len(head) - cell_len(took)
        if one.test:
            # Of an id the end says most.
            what = Text(_cut(safe(one.test, self._encoding), left, keep_end=True))
        else:
            what = Text(_cut(safe(one.phase, self._encoding), left), style="dim")
        return Text(head) + Text(took, style="cyan") + what

    def _bar(self, width: int, *, plain: bool) -> Text:
        count = f"{self.done:>{len(str(self.total))}}/{self.total}"
        ahead = self.ahead()
        words = f"{_clock(self.elapsed())}" + (f", about {_clock(ahead)} left" if ahead else "")
        columns = min(MOST_BAR, width - len(count) - len(words) - 4)
        head = Text(count, style="bold")
        if columns >= LEAST_BAR:
            done, rest = "#-" if plain else "\u2501\u2500"
            full = columns * self.done // max(1, self.total)
            bad = any(weight(verdict) in _STYLES for verdict in self.verdicts.copy())
            head += Text("  ") + Text(done * full, style="red" if bad else "green")
            head += Text(rest * (columns - full), style="dim")
        return head + Text(f"  {_cut(words, width - len(count) - 2)}")

    def ahead(self) -> float:
        """How many seconds the rest takes, by the times of the last run and the guests that there
        are now; 0 where that is not known."""
        if self.owed is None:
            return 0.0
        now = time.monotonic()
        # Copies: the screen is painted by a thread of its own.
        running = self.running.copy().items()
        left = (self.expected.get(name, 0.0) - (now - since) for name, since in running)
        return (self.owed + sum(max(0.0, one) for one in left)) / max(1, len(self._lines))


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "crop"
    return text


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _padded(text: str, columns: int) -> str:
    return text + " " * max(0, columns - cell_len(text))


def _cut(text: str, columns: int, *, keep_end: bool = False) -> str:
    """The text in so many columns; three dots stand for its end, or for its beginning."""
    if cell_len(text) <= columns:
        return text
    dots = "..."[: max(0, columns)]
    while text and cell_len(text) > columns - len(dots):
        # No more characters than columns, except that some have no width.
        over = max(1, (cell_len(text) - columns + len(dots)) // 2)
        text = text[over:] if keep_end else text[:-over]
    return dots + text if keep_end else text + dots


@contextmanager
def _log_above(show: Callable[[Text], None]) -> Iterator[None]:
    """What is logged on a terminal goes above the screen while it stands."""

    class Above(io.TextIOBase):
        def write(self, text: str) -> int:
            if line := text.rstrip("\n"):
                show(Text(safe(line, "utf-8")))
            return len(text)

    swapped = []
    for handler in logging.getLogger("lab").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream.isatty():
            swapped.append((handler, handler.setStream(Above())))
    try:
        yield
    finally:
        for handler, before in swapped:
            handler.setStream(before)
