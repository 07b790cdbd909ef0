# SPDX-License-Identifier: MIT
"""Reads the Test Anything Protocol, versions 12 to 14, and the kernel's KTAP, as a stream.

Sources: testanything.org/tap-version-14-specification.html, Documentation/dev-tools/ktap.rst and
tools/testing/selftests/kselftest/runner.sh of Linux 6.12.  The reader is stricter than most: it
serves a gate.  A stream that was cut off or damaged must not look like one that is whole, so each
level needs a plan that is fulfilled, numbers in sequence and a last line that ends.

tap.py (3.2) reads neither subtests nor KTAP, takes "okay" for "ok" and "1xx5" for a plan, and needs
two more packages in the guest.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

LINE_BYTES = 16 << 10
"""A longer line is not read to its end, and is a problem if it is one of TAP's."""
MOST_POINTS = 500
"""So many results are kept one by one, of each state; all are counted."""
MOST_PROBLEMS = 20
DEEPEST = 32
"""Levels of subtests within subtests."""
NAME_CHARACTERS = 200


class State(StrEnum):
    """What one test point says."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TODO = "todo"
    """Expected to fail: `# TODO`, or KTAP's `# XFAIL`. It proves nothing and disproves nothing."""


@dataclass(frozen=True, slots=True)
class Point:
    """One result: its description behind those of the subtests that it is in."""

    name: str
    state: State
    why: str = ""


@dataclass(slots=True)
class Reading:
    """What a whole stream says."""

    recognised: bool = False
    """Whether one line at least was TAP's."""
    versioned: bool = False
    """Whether it named a version."""
    counts: Counter[State] = field(default_factory=Counter)
    points: list[Point] = field(default_factory=list)
    """The results one by one; of a test with subtests, the subtests."""
    problems: list[str] = field(default_factory=list)
    """Why the stream cannot be believed, as sentences; none if it can."""
    _kept: Counter[State] = field(default_factory=Counter)

    def add(self, point: Point) -> None:
        """Count a result, and keep it while there are not too many."""
        self.counts[point.state] += 1
        self._keep(point)

    def problem(self, text: str) -> None:
        """Note a problem, unless there are many already."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(text)

    def take(self, inner: Reading, name: str) -> None:
        """Take over what the subtests of `name` said."""
        self.counts += inner.counts
        for point in inner.points:
            self._keep(Point(_join(name, point.name), point.state, point.why))
        for text in inner.problems:
            self.problem(f"{name}: {text}")

    def _keep(self, point: Point) -> None:
        self._kept[point.state] += 1
        if self._kept[point.state] <= MOST_POINTS:
            self.points.append(point)


_VERSION = re.compile(r"(K?TAP) version (\d{1,9})\s*$")
_VERSIONS = {"TAP": range(12, 15), "KTAP": range(1, 2)}
_PLAN = re.compile(r"1\.\.(\d{1,9})\s*(?:#\s*(.*))?$")
_POINT = re.compile(r"(not )?ok(?=\s|$)(?:\s+(\d{1,9})(?=\s|$))?\s*(-\s)?(.*)$")
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*((?i:skip\w*|todo)|XFAIL)\b[\s:-]*(.*)$")
_REMARK = re.compile(r"(?:^|\s)#\s.*$")
_SUBTEST = re.compile(r"# ?Subtest(?:: (.*))?$", re.IGNORECASE)
_BAIL = re.compile(r"bail out!\s*(.*)$", re.IGNORECASE)
_WRAPPED = re.compile(r"# selftests: \S+: \S+$")


class _Level:
    """A plan and the results that belong to it."""

    def __init__(self, indent: int, name: str = "") -> None:
        self.indent, self.name = indent, name
        self.plan: int | None = None
        self.plan_is_last = self.versioned = False
        self.seen = 0
        self.said = Reading()
        self.subtests: Reading | None = None
        """Of the subtests that the next result is about."""

    def empty(self) -> bool:
        return self.plan is None and not self.seen and self.subtests is None

    def put_aside(self, said: Reading) -> None:
        self.drop_subtests()
        self.subtests = said

    def drop_subtests(self) -> None:
        """Subtests without a result of the test that they belong to still count."""
        if self.subtests is not None:
            self.said.take(self.subtests, "subtests")
            self.said.problem("subtests are not followed by the result of their test")
            self.subtests = None

    def close(self) -> Reading:
        self.drop_subtests()
        if self.plan is None:
            self.said.problem(f"there is no plan (1..N) for its {_tests(self.seen)}")
        elif self.plan != self.seen:
            self.said.problem(f"{_tests(self.plan)} planned, {self.seen} reported")
        return self.said


class _Document:
    """The levels of one stream of lines."""

    def __init__(self) -> None:
        self._levels = [_Level(0)]
        self._name = ""
        """What a `# Subtest` line calls the level that is to come."""
        self._yaml: int | None = None
        self._after_point = False
        self._wrapped: _Document | None = None
        self.recognised = False

    def line(self, line: str) -> None:
        line = line.rstrip("\r").expandtabs(4)
        text = line.lstrip(" ")
        if not text:
            return
        indent = len(line) - len(text)
        after_point, self._after_point = self._after_point, False
        if self._yaml is not None:
            if indent >= self._yaml:
                if text.rstrip() == "..." and indent == self._yaml:
                    self._yaml = None
                return
            self._leave_yaml()
        if text[0] == "#":
            self._comment(text, indent)
        elif match := _POINT.match(text):
            self._point(match, indent)
        elif match := _PLAN.match(text):
            self._plan(match, indent)
        elif match := _VERSION.match(text):
            self._version(match, indent)
        elif match := _BAIL.match(text):
            self.recognised = True
            self._levels[0].said.problem(f"it bailed out: {match[1] or 'no reason given'}")
        elif after_point and text.rstrip() == "---" and indent > self._levels[-1].indent:
            self._yaml = indent

    def end(self) -> Reading:
        if self._yaml is not None:
            self._leave_yaml()
        if self._wrapped is not None:
            self._levels[0].put_aside(self._wrapped.end())
        while len(self._levels) > 1:
            self._close()
        base = self._levels[0]
        said = base.close()
        said.recognised, said.versioned = self.recognised, base.versioned
        return said

    # -- levels ------------------------------------------------------------------------------

    def _at(self, indent: int) -> _Level:
        """The level of a line with this indentation, a new one if it is deeper than the last."""
        self.recognised = True
        while self._levels[-1].indent > indent:
            self._close()
        if self._levels[-1].indent < indent:
            if len(self._levels) < DEEPEST:
                self._levels.append(_Level(indent, self._name))
            else:
                self._levels[-1].said.problem(f"subtests more than {DEEPEST} levels deep")
            self._name = ""
        return self._levels[-1]

    def _close(self) -> None:
        self._levels[-2].put_aside(self._levels.pop().close())

    def _leave_yaml(self) -> None:
        self._yaml = None
        self._levels[-1].said.problem("a block of YAML is not closed")

    # -- kinds of lines ----------------------------------------------------------------------

    def _comment(self, text: str, indent: int) -> None:
        if match := _SUBTEST.match(text):
            name, top = (match[1] or "").strip()[:NAME_CHARACTERS], self._levels[-1]
            if indent > top.indent:
                self._name = name
                self._at(indent)
            elif indent == top.indent and top.indent and top.empty() and not top.name:
                top.name = name  # KTAP names a level behind its version
            else:
                self._name = name  # TAP 14 may name it outside of it
        elif indent == 0 and _WRAPPED.match(text):
            # The kernel's runner puts what a program says behind "# ".
            if self._wrapped is not None:  # the result of the last one is missing
                self._levels[0].put_aside(self._wrapped.end())
                self._levels[0].drop_subtests()
            self._wrapped = _Document()
        elif indent == 0 and self._wrapped is not None:
            self._wrapped.line(text.removeprefix("#").removeprefix(" "))

    def _version(self, match: re.Match[str], indent: int) -> None:
        level = self._at(indent)
        if level.versioned or not level.empty():
            level.said.problem(f"{match[0].strip()!r} in the middle of it")
        level.versioned = True
        if int(match[2]) not in _VERSIONS[match[1]]:
            level.said.problem(f"{match[0].strip()!r} is a version that the lab does not know")

    def _plan(self, match: re.Match[str], indent: int) -> None:
        level = self._at(indent)
        if level.plan is not None:
            level.said.problem(f"a second plan, {match[0].strip()!r}")
            return
        level.plan, level.plan_is_last = int(match[1]), level.seen > 0
        if level.plan == 0:
            reason = re.sub(r"(?i)^skip\w*[\s:-]*", "", (match[2] or "").strip())
            level.said.add(Point("", State.SKIPPED, reason or "no reason given"))

    def _point(self, match: re.Match[str], indent: int) -> None:
        bad, number, rest = match[1], match[2], match[4].strip()
        if indent > self._levels[-1].indent and not (bad or number):
            return  # somebody's text, not the first of some subtests
        recognised = self.recognised
        level = self._at(indent)
        # A program that says "ok" does not speak TAP for that.
        self.recognised = recognised or bool(bad or number or match[3])
        self._after_point = True
        level.seen += 1
        if number is not None and int(number) != level.seen:
            level.said.problem(f"result number {int(number)} where {level.seen} was due")
        if level.plan_is_last:
            level.said.problem("a result behind the plan, which was not the first line")
            level.plan_is_last = False
        directive = _DIRECTIVE.search(rest)
        # What follows a "#" otherwise is a remark: "# exit=1", "# TIMEOUT 45 seconds".
        name = _REMARK.sub("", rest[: directive.start()] if directive else rest).strip(" -")
        name = name[:NAME_CHARACTERS] or str(level.seen)
        state, why = _state(bool(bad), directive)
        if self._wrapped is not None and indent == 0:
            inner, self._wrapped = self._wrapped.end(), None
            if inner.recognised and inner.versioned:
                level.put_aside(inner)
        subtests, level.subtests = level.subtests, None
        if subtests is None:
            level.said.add(Point(name, state, why))
            return
        level.said.take(subtests, name)
        if state is State.FAILED and not (subtests.counts[State.FAILED] or subtests.problems):
            level.said.add(Point(name, state, "though none of its subtests did"))


class Reader:
    """Reads a stream piece by piece, in bounded memory."""

    def __init__(self) -> None:
        self._document = _Document()
        self._part = bytearray()
        self._long = 0

    def feed(self, data: bytes) -> None:
        """Read the next piece, which may begin and end anywhere."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._keep(line)
            self._finish_line()
        self._keep(rest)

    def end(self) -> Reading:
        """What was said in all; nothing may be fed after this."""
        cut = bytes(self._part)
        if cut:
            self._finish_line()
        said = self._document.end()
        if cut and said.recognised:
            shown = cut[-60:].decode("utf-8", "backslashreplace")
            said.problem(f"the output ends within a line: {shown!r}")
        if self._long and said.recognised:
            said.problem(f"{self._long} lines are longer than {LINE_BYTES} bytes")
        return said

    def _keep(self, data: bytes) -> None:
        room = LINE_BYTES + 1 - len(self._part)
        self._part += data[: max(0, room)]

    def _finish_line(self) -> None:
        self._long += len(self._part) > LINE_BYTES
        self._document.line(self._part.decode("utf-8", "backslashreplace"))
        self._part.clear()


def read(data: bytes) -> Reading:
    """What a whole stream says."""
    reader = Reader()
    reader.feed(data)
    return reader.end()


def _state(bad: bool, directive: re.Match[str] | None) -> tuple[State, str]:
    word = directive[1].upper() if directive else ""
    why = directive[2].strip() if directive else ""
    if word == "XFAIL" or (word == "TODO" and bad):
        return State.TODO, why or "no reason given"
    if bad:
        return State.FAILED, why
    if word.startswith("SKIP"):
        return State.SKIPPED, why or "no reason given"
    return State.PASSED, ""


def _join(outer: str, inner: str) -> str:
    return f"{outer} / {inner}" if inner else outer


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"
