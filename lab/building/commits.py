# SPDX-License-Identifier: MIT
"""Repositories of the lab's own, which have the objects of somebody's and leave that one alone:
gitrepository-layout(5), objects/info/alternates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .. import tools
from ..errors import LabError, UsageError

_OWN = (
    # Settings of this user's must not change what is in a file, nor start programs.
    *("-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0", "-c", "advice.detachedHead=false"),
)
_LONG_S = 3600.0


def make(own: Path) -> None:
    """Make a bare repository, unless it is there."""
    if not (own / "HEAD").exists():
        # A template of this user's might bring hooks.
        tools.run(["git", "init", "-q", "--bare", "--template=", own], what="making a repository")


def borrow(directory: Path, own: Path) -> None:
    """Make a bare repository that has the objects of the one in `directory`. Raises UsageError."""
    objects = objects_of(directory)
    make(own)
    (own / "objects/info").mkdir(exist_ok=True)
    (own / "objects/info/alternates").write_text(f"{objects}\n")
    # Without it a history that was cut off would be one with missing commits.
    shallow = objects.with_name("shallow")
    if shallow.exists():
        (own / "shallow").write_bytes(shallow.read_bytes())
    else:
        (own / "shallow").unlink(missing_ok=True)


def git(own: Path, *words: str, allowed: Sequence[int] = (0,)) -> str:
    """What git prints about the repository `own`. Raises LabError for a status not `allowed`."""
    environment = {k: v for k, v in tools.environment().items() if not k.startswith("GIT_")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    environment |= {k: v for k, v in os.environ.items() if k.startswith("GIT_SSL_")}
    return tools.run(
        ["git", *_OWN, f"--git-dir={own}", *words],
        what="reading a commit",
        env=environment,
        timeout_s=_LONG_S,
        allowed=allowed,
    )


def objects_of(directory: Path) -> Path:
    """Where a repository keeps its objects. Raises UsageError when it is none."""
    try:
        common = _in(directory, "rev-parse", "--git-common-dir").strip()
    except LabError as error:
        raise UsageError(f"--git {directory} is no repository: {error.message}") from error
    return (directory / common / "objects").resolve()


def resolved(directory: Path, ref: str) -> str:
    """All digits of the commit that a ref leads to. Raises UsageError."""
    objects_of(directory)
    try:
        return _in(
            directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
        ).strip()
    except LabError as error:
        raise UsageError(
            f"there is no commit {ref!r} in {directory}",
            hint="a tag, a branch or a commit: `git tag --list` and `git log` in it show them",
        ) from error


def _in(directory: Path, *words: str) -> str:
    environment = {k: v for k, v in tools.environment().items() if not k.startswith("GIT_")}
    return tools.run(
        ["git", "-C", directory, *words],
        what="reading a commit",
        env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
    )
