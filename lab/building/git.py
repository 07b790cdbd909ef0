# SPDX-License-Identifier: MIT
"""A commit as the sources: of a repository here, which is only read, or of one elsewhere.

A bare repository of the lab's own borrows the objects of the one that is named
(gitrepository-layout(5), objects/info/alternates), or fetches the one commit. What is checked out
is a directory of the cache; of the next commit git writes only the files that differ.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import KernelUnavailable, LabError, UsageError
from . import commits, sources

_NO_REF = ("couldn't find remote ref", "not our ref", "no such remote ref")


class GitCommit:
    """The sources that a ref of a repository leads to."""

    def __init__(self, repository: str, ref: str) -> None:
        """`repository` is a directory or what git fetches from. Raises UsageError."""
        self._named, self._ref = repository, ref
        self._directory = Path(repository).absolute() if Path(repository).exists() else None
        if repository.startswith("-") or not repository:
            raise UsageError(f"--git {repository!r} is neither a directory nor an address")
        if self._directory is None and ":" not in repository:
            raise UsageError(
                f"--git {repository}: there is no such directory, and it is no address"
            )
        if not ref or ref.startswith("-"):
            raise UsageError(f"--ref {ref!r} is no ref of a repository")
        if self._directory is not None:
            commits.objects_of(self._directory)
            self._commit = commits.resolved(self._directory, ref)
        else:
            self._commit = ""

    @property
    def place(self) -> str:
        """See `Sources`."""
        return f"git {self._directory.resolve() if self._directory else self._named}"

    @property
    def commit(self) -> str:
        """All digits of the commit; of a repository elsewhere, once it is pinned."""
        return self._commit

    @property
    def origin(self) -> str:
        """See `Sources`."""
        if self._ref == self._commit:
            return f"commit {self._commit[:12]} of {self._named}"
        return f"{self._ref} of {self._named}, commit {self._commit[:12] or 'unknown yet'}"

    def pin(self, workshop: Path) -> str:
        """See `Sources`."""
        own = workshop / "git"
        if self._directory is not None:
            commits.borrow(self._directory, own)
        else:
            commits.make(own)
            self._commit = self._fetched(own)
        tree = commits.git(own, "rev-parse", "--verify", f"{self._commit}^{{tree}}").strip()
        return f"git {tree}"

    def lay(self, workshop: Path) -> Path:
        """See `Sources`."""
        own, tree = workshop / "git", workshop / "tree"
        tree.mkdir(exist_ok=True)
        (own / "index.lock").unlink(missing_ok=True)  # of a git that was killed; ours is the lock
        at = (f"--work-tree={tree}",)
        # Only what differs from the index is written: object files of all others stay good.
        commits.git(own, *at, "read-tree", "--reset", "-u", self._commit)
        # What a killed checkout left unwritten, and what git does not know.
        commits.git(own, *at, "checkout-index", "--all", "--force", "--quiet")
        commits.git(own, *at, "clean", "-q", "-ffdx")
        sources.check(tree, self.origin)
        return tree

    def remember(self, place: Path) -> None:
        """See `Sources`."""

    def stale(self, place: Path, since_ns: int) -> bool:
        """See `Sources`; git gives each file that it writes the time of now."""
        del place, since_ns
        return False

    def changed(self) -> str:
        """See `Sources`; nobody but the holder of the lock writes there."""
        return ""

    def _fetched(self, own: Path) -> str:
        try:
            commits.git(own, "fetch", "-q", "--depth=1", "--no-tags", "--", self._named, self._ref)
        except LabError as error:
            if any(words in str(error).lower() for words in _NO_REF):
                raise UsageError(f"there is no ref {self._ref!r} in {self._named}") from error
            raise KernelUnavailable(
                f"{self._named} does not give {self._ref}: {error.message}",
                hint="a repository here, --git DIR, needs no network",
            ) from error
        return commits.git(own, "rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
