# SPDX-License-Identifier: MIT
"""Text of tests and kernels as a page may show it: whoever wrote it may have meant harm."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

MOST_ID = 300
"""Characters of an id; results.json has all of them."""
MOST_WHY = 2_000
"""Characters of a reason."""
MOST_OF_BAD = 48_000
"""Bytes of one text of a test that is not good."""
MOST_OF_GOOD = 2_000
"""Bytes of one text of a test that is."""
MOST_OF_ALL_BAD = 16 << 20
MOST_OF_ALL_GOOD = 6 << 20
"""Bytes of all such texts together: a page is to open at once."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_HIDDEN = (*range(0x80, 0xA0), 0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F))
_HIDDEN = (*_HIDDEN, *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC))
_HIDDEN = (*(c for c in range(0x20) if chr(c) not in "\n\t"), 0x7F, *_HIDDEN)
_TABLE = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _HIDDEN} | {
    code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)
}


def shown(text: str) -> str:
    """The text with what a browser would not show, or would obey, made visible as escapes: control
    characters, directions of writing, what has no width."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def line(text: str, most: int = MOST_WHY) -> str:
    """The same in one line of at most so many characters, its middle left out."""
    text = shown(text[: 4 * most] if len(text) > 8 * most else text)
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} \u2026 {text[-half:]}"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a file as far as it is shown."""

    text: str
    size: int
    """Bytes of the part."""
    left_out: int
    """So many of them are not in `text`."""
    file: Path
    begin: int
    why: str = ""
    """Why nothing is shown, as a sentence."""


class Budget:
    """Reads parts of files as long as a page has room for them."""

    def __init__(self, base: Path) -> None:
        """`base` is the directory of the page."""
        self._base = base
        self._links: dict[Path, str] = {}
        self._left = {True: MOST_OF_ALL_GOOD, False: MOST_OF_ALL_BAD}
        self._files: dict[Path, BinaryIO | str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def excerpt(self, directory: Path, part: Mapping[str, int | str], *, good: bool) -> Excerpt:
        """Its beginning and its end, if it is too long for one page."""
        file = directory / str(part["file"])
        begin, end = int(part["begin"]), int(part["end"])
        size = end - begin
        opened = self._open(file)
        if isinstance(opened, str):
            return Excerpt("", size, size, file, begin, opened)
        if end > os.fstat(opened.fileno()).st_size:
            return Excerpt("", size, size, file, begin, f"{file.name} was cut off or edited")
        most = min(MOST_OF_GOOD if good else MOST_OF_BAD, self._left[good])
        if size > most and most < MOST_OF_GOOD // 4:
            return Excerpt("", size, size, file, begin, "this page has no room for it")
        self._left[good] -= min(size, most)
        if size <= most:
            return Excerpt(output(_read(opened, begin, end)), size, 0, file, begin)
        head = most // 3
        left_out = size - most
        text = "\n".join(
            (
                output(_read(opened, begin, begin + head)),
                f"\u2026 {left_out:,} bytes are left out here \u2026",
                output(_read(opened, end - (most - head), end)),
            )
        )
        return Excerpt(text, size, left_out, file, begin)

    def link(self, file: Path) -> str:
        """The address of a file; empty if it is not there."""
        if file not in self._links:
            self._links[file] = link(file, self._base) if file.is_file() else ""
        return self._links[file]

    def _open(self, file: Path) -> BinaryIO | str:
        if file not in self._files:
            try:
                self._files[file] = self._stack.enter_context(file.open("rb"))
            except OSError as error:
                self._files[file] = f"{file.name} cannot be read: {error.strerror}"
        return self._files[file]


def output(data: bytes) -> str:
    """What a program wrote, in whatever encoding, without its colours."""
    return shown(_COLOURS.sub("", data.decode("utf-8", "backslashreplace")))


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def link(file: Path, base: Path) -> str:
    """The address of a file, from the page's directory."""
    path = os.path.relpath(file.absolute(), base.absolute())
    return quote(os.fsencode(path))
