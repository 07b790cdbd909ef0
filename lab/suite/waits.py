# SPDX-License-Identifier: MIT
"""Where a process waits, in Python and in the kernel, read from what either says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_THREAD = re.compile(r"process \d+, thread \d+ \(.*\): wchan (?P<wchan>\S+), system call")
_KERNEL_FRAME = re.compile(r"\[<[0-9a-f]+>\] (?P<function>[\w.]+)\+0x")
_PYTHON_FRAME = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+) in (?P<function>[^\n]+)')
_CURRENT = re.compile(r"^Current thread .*$", re.MULTILINE)


def kernel_function(stacks: str) -> str:
    """Where in the kernel the first thread waits; empty if it runs, or that is not known."""
    first, *more = stacks.splitlines() or [""]
    if (thread := _THREAD.match(first)) is None:
        return ""
    if more and (frame := _KERNEL_FRAME.match(more[0])) is not None:
        return frame["function"]
    return "" if thread["wchan"] == "0" else thread["wchan"]


def python_frames(printed: str) -> Iterator[Mapping[str, str]]:
    """Those of the thread that faulthandler calls the current one, the innermost first."""
    current = _CURRENT.search(printed)
    if current is None:
        return
    for line in printed[current.end() :].strip().splitlines():
        if (frame := _PYTHON_FRAME.search(line)) is None:
            return
        yield frame.groupdict()


def python_line(frames: Sequence[Mapping[str, str]], root: str, test: str) -> str:
    """The innermost line, and the one of the tree at `root` that led there, if it is another: of
    the file of the test with this id rather than of any other. Empty without frames."""
    if not frames:
        return ""
    file = f"{root}/{test.partition('::')[0]}"
    tests = (f for f in frames if f["file"] == file)
    own = next(tests, next((f for f in frames if f["file"].startswith(f"{root}/")), frames[0]))
    told = [f"{f['file'].removeprefix(f'{root}/')}:{f['line']} ({f['function']})" for f in frames]
    inner, outer = told[0], told[frames.index(own)]
    return inner if inner == outer else f"{inner}, called from {outer}"


def in_short(python: str, kernel: str) -> str:
    """One clause of both; either may be empty."""
    where = f"it waited in {python}" if python else "its Python did not say where it waited"
    return f"{where}, in the kernel in {kernel}" if kernel else where
