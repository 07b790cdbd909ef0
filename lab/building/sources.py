# SPDX-License-Identifier: MIT
"""What every kind of sources can do, and what makes a directory the sources of a kernel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from ..errors import LabError, UsageError

_MAKEFILE = re.compile(r"\bkernelversion\b")
_UNFIT = re.compile(r"[\s:]")
"""Its Makefile: "main directory cannot contain spaces nor colons" (6.12)."""


class Sources(Protocol):
    """Where the sources of a kernel come from. They are only read."""

    @property
    def place(self) -> str:
        """What makes them the same sources at another time, whatever has changed in them."""
        ...

    @property
    def origin(self) -> str:
        """What they are, in words; of a commit or a package, once `pin` has been called."""
        ...

    def pin(self, workshop: Path) -> str:
        """What they are now: a text that is another one when any byte of them is.

        `workshop` is a directory for them in the cache, whose lock is held. Raises LabError, and
        UsageError for what does not exist.
        """
        ...

    def lay(self, workshop: Path) -> Path:
        """A directory that holds what was pinned. Raises LabError."""
        ...

    def remember(self, place: Path) -> None:
        """Write to `place` what `stale` wants to know of what is pinned now."""
        ...

    def stale(self, place: Path, since_ns: int) -> bool:
        """Whether make, which compares times, may take object files for new ones although their
        sources have changed: objects that were made until `since_ns` (nanoseconds since the epoch)
        of what was remembered in `place`."""
        ...

    def changed(self) -> str:
        """What has changed since `pin`, in words; empty if nothing."""
        ...


def check(tree: Path, what: str) -> None:
    """Raise UsageError if `tree` does not hold a kernel that kbuild can build elsewhere."""
    try:
        text = (tree / "Makefile").read_text(errors="replace")
    except OSError as error:
        text = ""
        why = error.strerror
    else:
        why = "it has no target kernelversion"
    if not _MAKEFILE.search(text):
        raise UsageError(
            f"{what} is no kernel tree: {tree / 'Makefile'}: {why}",
            hint="name the directory that has the kernel's Makefile, Kconfig and arch/ in it",
        )
    if _UNFIT.search(str(tree)):
        raise UsageError(
            f"kbuild cannot work in {str(tree)!r}: a path with a space or a colon in it",
            hint="rename the directory",
        )
    # As kbuild's target outputmakefile looks (6.12).
    for name in (".config", "include/config", *_generated(tree)):
        if (tree / name).exists():
            raise UsageError(
                f"{what} is not clean: it holds {name} of a build of its own, and kbuild builds"
                " elsewhere from a clean tree only",
                hint="`make mrproper` in it, or build a commit of it with --git and --ref",
            )


def check_place(workshop: Path) -> None:
    """Raise LabError if kbuild cannot write into this directory."""
    if _UNFIT.search(str(workshop)):
        raise LabError(
            f"kbuild cannot work in {str(workshop)!r}: a path with a space or a colon in it",
            hint="name another cache in LAB_CACHE",
        )


def _generated(tree: Path) -> list[str]:
    found = tree.glob("arch/*/include/generated")
    return [str(path.relative_to(tree)) for path in found]
