# SPDX-License-Identifier: MIT
"""Between which two commits of a kernel's repository a test's verdict changes: git's own bisection,
with a build and a boot a step.

git keeps its state in a repository of the bisection's own, which borrows the objects of the named
one and writes nothing there. What was tried is in `steps.json`, so that the same bisection goes on
where it was stopped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..building import commits as history
from ..errors import LabError, UsageError
from .bisect import Side, Tried

Attempt = Callable[[str], Tried]
"""Builds a commit, given by all its digits, and runs the test on it."""

_OLDER, _NEWER = "older", "newer"
_FIRST = re.compile(rf"^([0-9a-f]{{40,64}}) is the first {_NEWER} commit", re.MULTILINE)
_ANY = re.compile(r"could be any of:\n((?:[0-9a-f]{40,64}\n)+)")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit."""

    sha: str
    subject: str

    def __str__(self) -> str:
        return f"{self.sha[:12]} ({self.subject})"


@dataclass(frozen=True, slots=True)
class Turn:
    """Where the verdict changes."""

    commits: tuple[Commit, ...]
    """The first one of the newer side; more than one where those before it have no verdict."""
    newer: Side
    """What the newer side is: bad where a defect came, good where it went."""
    steps: int
    """How many commits were tried between the two ends."""
    skipped: int

    def __str__(self) -> str:
        which = " or ".join(map(str, self.commits))
        left = f", {self.skipped} without a verdict" if self.skipped else ""
        return f"first {self.newer} commit {which}; {self.steps} steps{left}"


class Bisection:
    """One bisection, whose state is in `directory`. Raises UsageError for ends that have nothing
    between them."""

    def __init__(self, repository: Path, good: str, bad: str, directory: Path) -> None:
        self._repository, self._directory = repository, directory
        self._own = directory / "git"
        ends = {side: history.resolved(repository, ref) for side, ref in _named(good, bad)}
        if ends[Side.GOOD] == ends[Side.BAD]:
            raise UsageError(
                f"--good and --bad both mean {ends[Side.GOOD][:12]}", hint="name two commits"
            )
        history.borrow(repository, self._own)
        if self._is_ancestor(ends[Side.GOOD], ends[Side.BAD]):
            self._sides = (Side.GOOD, Side.BAD)
        elif self._is_ancestor(ends[Side.BAD], ends[Side.GOOD]):
            self._sides = (Side.BAD, Side.GOOD)
        else:
            raise UsageError(
                f"neither of {good} and {bad} comes before the other in {repository}",
                hint="name a commit and one that follows from it",
            )
        self._old, self._new = (ends[side] for side in self._sides)
        self._steps: dict[str, Tried] = {}
        self._read()

    @property
    def between(self) -> int:
        """How many commits may be the one that is looked for."""
        return int(self._git("rev-list", "--count", f"{self._old}..{self._new}"))

    @property
    def known(self) -> int:
        """How many commits were tried before this run."""
        return len(self._steps)

    def run(self, attempt: Attempt, say: Callable[[str], None] = lambda _: None) -> Turn:
        """Find it. Both ends are tried first.

        Raises UsageError when the ends do not differ as said, LabError when one has no verdict, and
        what `attempt` raises.
        """
        for commit, side in zip((self._old, self._new), self._sides, strict=True):
            found = self._look(commit, attempt, say)
            if found is Side.UNDECIDED:
                raise LabError(
                    f"the test has no verdict on {self._commit(commit)}, one of the two ends: "
                    f"{self._steps[commit].why}",
                    hint="name another commit for it",
                )
            if found is not side:
                raise UsageError(
                    f"{self._commit(commit)} is {found}, not {side}: there is nothing to be found "
                    "between these two",
                    hint="exchange --good and --bad, perhaps",
                )
        words = {self._sides[0]: _OLDER, self._sides[1]: _NEWER, Side.UNDECIDED: "skip"}
        self._git("bisect", "reset")
        # Of a HEAD without a commit `git bisect` thinks nothing (2.39).
        self._git("update-ref", "--no-deref", "HEAD", self._new)
        told = self._git(
            *("bisect", "start", "--no-checkout", f"--term-old={_OLDER}", f"--term-new={_NEWER}"),
            *(self._new, self._old, "--"),
        )
        tried = []
        while (found_in := self._ended(told)) is None:
            commit = self._git("rev-parse", "--verify", "BISECT_HEAD").strip()
            tried.append(self._look(commit, attempt, say))
            told = self._git("bisect", words[tried[-1]], allowed=(0, 2))
        log = self._git("bisect", "log")
        (self._directory / "bisect.log").write_text(log)
        return Turn(
            commits=tuple(self._commit(sha) for sha in found_in),
            newer=self._sides[1],
            steps=len(tried),
            skipped=tried.count(Side.UNDECIDED),
        )

    def over(self) -> None:
        """Forget what was tried: the next bisection tries again."""
        (self._directory / "steps.json").unlink(missing_ok=True)

    def _look(self, commit: str, attempt: Attempt, say: Callable[[str], None]) -> Side:
        before = self._steps.get(commit)
        tried = attempt(commit) if before is None else before
        why = f": {tried.why}" if tried.why else ""
        again = "" if before is None else " (known from before)"
        say(f"{self._commit(commit)}: {tried.side}{why}{again}")
        if before is None:
            self._steps[commit] = tried
            self._write()
        return tried.side

    def _ended(self, told: str) -> Sequence[str] | None:
        """The commits that git's last words end with."""
        if match := _FIRST.search(told):
            return [match[1]]
        if match := _ANY.search(told):
            return match[1].split()
        return None

    def _commit(self, sha: str) -> Commit:
        return Commit(sha, self._git("show", "-s", "--format=%s", sha).strip())

    def _is_ancestor(self, one: str, other: str) -> bool:
        base = self._git("merge-base", one, other, allowed=(0, 1)).strip()
        return base == one

    def _git(self, *words: str, allowed: Sequence[int] = (0,)) -> str:
        return history.git(self._own, *words, allowed=allowed)

    def _read(self) -> None:
        try:
            raw: Mapping[str, Mapping[str, str]] = json.loads(
                (self._directory / "steps.json").read_text()
            )
            self._steps = {sha: Tried(Side(one["side"]), one["why"]) for sha, one in raw.items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(
                f"{self._directory / 'steps.json'} is no record of a bisection: {error!r}",
                hint="remove it to begin anew",
            ) from error

    def _write(self) -> None:
        raw = {sha: {"side": one.side, "why": one.why} for sha, one in self._steps.items()}
        made = self._directory / f".steps.{os.getpid()}"
        made.write_text(json.dumps(raw, indent=1) + "\n")
        made.replace(self._directory / "steps.json")


def _named(good: str, bad: str) -> Sequence[tuple[Side, str]]:
    return ((Side.GOOD, good), (Side.BAD, bad))
