# SPDX-License-Identifier: MIT
"""Did the kernel complain?

What counts as a complaint is in `dmesg_deny.txt`, what does not although it looks like one in
`dmesg_allow.toml`; `tests/lab/dmesg_cases/` holds, for each pattern, a log that must be found and,
for the near misses, logs that must not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..facts.kernel import Kernel
    from ..project import Project
    from ..vm.kmsg import Record

HERE = Path(__file__).parent
MARK = "lab:"
EXCERPT_LINES = 60
WOVEN = 8
"""So many records back a message may have begun of which a record has the rest."""
_UNLIKE = (
    "BUG: KASAN: use-after-free in fput+0x1c/0x20",
    "Oops: 0000 [#1] PREEMPT SMP",
    "Kernel panic - not syncing: Attempted to kill init!",
)
"""Complaints that have nothing in common."""
EVERY = "every"
"""Instead of a list of kernels: an allowance for all of them."""


@dataclass(frozen=True, slots=True)
class Splat:
    """A complaint of the kernel: its first line, and the log from there to the next complaint."""

    line: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """A line that is no complaint on some kernels."""

    pattern: re.Pattern[str]
    kernels: tuple[str, ...]
    """Series, versions or releases; only `EVERY` for all kernels."""
    reason: str

    def covers(self, kernel: Kernel | None) -> bool:
        """Whether it is an allowance for this kernel; None is a kernel that nobody named."""
        if self.kernels == (EVERY,):
            return True
        if kernel is None:
            return False
        names = {kernel.series, kernel.upstream, kernel.package, kernel.release}
        return not names.isdisjoint(self.kernels)


@cache
def denied() -> Sequence[re.Pattern[str]]:
    """What counts as a complaint."""
    lines = (HERE / "dmesg_deny.txt").read_text().splitlines()
    return tuple(re.compile(line) for line in lines if line and not line.startswith("#"))


@cache
def allowed() -> Sequence[Allowance]:
    """What does not, although a pattern of `denied` finds it."""
    return read_allowances((HERE / "dmesg_allow.toml").read_text())


def of(project: Project) -> Sequence[Allowance]:
    """The allowances of a repository's own. Raises UsageError naming what one of them lacks."""
    if not project.dmesg_allow:
        return ()
    from ..errors import UsageError  # not in guests

    try:
        return read_allowances(project.path(project.dmesg_allow).read_text())
    except ValueError as error:  # of TOML, too
        raise UsageError(f"{project.dmesg_allow}: {error}") from error


def read_allowances(text: str) -> Sequence[Allowance]:
    """The allowances in a TOML file's text. Raises ValueError naming what one of them lacks."""
    import tomllib  # not in guests, where every import is dear

    found = []
    for entry in tomllib.loads(text).get("allow", ()):
        if not isinstance(entry, dict):
            raise ValueError(f"an allowance is {entry!r}, not a table [[allow]]")
        name = f"the allowance {entry.get('pattern')!r}"
        if set(entry) != {"pattern", "kernels", "reason"}:
            raise ValueError(f"{name} has {sorted(entry)}, not pattern, kernels and reason")
        kernels, reason = entry["kernels"], entry["reason"]
        if not kernels or not (isinstance(kernels, list) or kernels == EVERY):
            raise ValueError(f"{name} names the kernels {kernels!r}: a list, or {EVERY!r}")
        if not isinstance(reason, str) or len(reason.split()) < 3:
            raise ValueError(f"{name} has the reason {reason!r}, which explains nothing")
        names = (kernels,) if isinstance(kernels, str) else tuple(map(str, kernels))
        found.append(Allowance(_allowing(entry["pattern"], name), names, reason))
    return found


def _allowing(pattern: object, name: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern) if isinstance(pattern, str) else None
    except re.error as error:
        raise ValueError(f"{name} is no regular expression: {error}") from error
    if compiled is None:
        raise ValueError(f"{name} is no text")
    if all(map(compiled.search, _UNLIKE)):
        raise ValueError(f"{name} allows everything, a panic among it")
    return compiled


@cache
def _any_denied() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern.pattern})" for pattern in denied()))


def is_mark(line: str) -> bool:
    """Whether the lab wrote this line itself; a test's name in it may say anything."""
    return re.match(rf"(<\d+>)?\s*(\[[ \d.]+\](\[[^\]]*\])?)?\s*{MARK} ", line) is not None


def is_complaint(line: str, kernel: Kernel | None = None, more: Sequence[Allowance] = ()) -> bool:
    """Whether this line of a kernel's log is a complaint; `more` are a repository's allowances."""
    return _any_denied().search(line) is not None and not any(
        one.covers(kernel) and one.pattern.search(line) for one in (*allowed(), *more)
    )


def scan(log: bytes, kernel: Kernel | None = None, more: Sequence[Allowance] = ()) -> list[Splat]:
    """Every complaint in a piece of a console's text."""
    lines = log.decode("utf-8", "backslashreplace").splitlines()
    return scan_lines([line for line in lines if not is_mark(line)], kernel, more)


def scan_lines(
    lines: Sequence[str], kernel: Kernel | None = None, more: Sequence[Allowance] = ()
) -> list[Splat]:
    """Every complaint in these lines of a kernel's log."""
    return _cut(lines, [n for n, line in enumerate(lines) if is_complaint(line, kernel, more)])


def scan_records(
    records: Iterable[Record], kernel: Kernel | None = None, more: Sequence[Allowance] = ()
) -> list[Splat]:
    """Every complaint in these records. What a process wrote into the log is none."""

    def is_bad(line: str) -> bool:
        return is_complaint(line, kernel, more)

    lines: list[str] = []
    found: list[int] = []
    for record in records:
        if not record.from_kernel:
            continue
        for text in record.line.splitlines() or [record.line]:
            bad = is_bad(text)
            if record.fragment and not bad:
                # The rest of a message that other processors' words kept it from joining.
                rest = record.text.partition("\n")[0]
                for begun in lines[: -WOVEN - 1 : -1]:
                    if not is_bad(begun) and is_bad(begun + rest):
                        text, bad = begun + rest, True
                        break
                else:
                    if lines and not is_bad(lines[-1]):
                        text = lines.pop() + rest
            if bad:
                found.append(len(lines))
            lines.append(text)
    return _cut(lines, found)


def _cut(lines: Sequence[str], found: Sequence[int]) -> list[Splat]:
    ends = [*found[1:], len(lines)]
    return [
        Splat(lines[first].strip(), "\n".join(lines[first : min(end, first + EXCERPT_LINES)]))
        for first, end in zip(found, ends, strict=False)
    ]


def summary(splats: Sequence[Splat]) -> str:
    """The first of some complaints, and how many more there are."""
    more = f" and {len(splats) - 1} more" if len(splats) > 1 else ""
    return splats[0].line + more
