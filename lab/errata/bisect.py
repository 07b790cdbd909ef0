# SPDX-License-Identifier: MIT
"""Between which two released kernels a test's verdict changes: minutes, not a build per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import LabError, UsageError
from ..facts.kernel import Kernel, version_key


class Side(StrEnum):
    """On which side of the boundary a release is."""

    GOOD = "good"
    BAD = "bad"
    UNDECIDED = "not decided"
    """The test has no verdict there: a lost guest, a capability that is absent, no such kernel."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a test said on one release."""

    side: Side
    why: str


Attempt = Callable[[Kernel], Tried]
"""Runs the test on one release."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Two releases with different verdicts, and what lies between them without one."""

    last: Kernel
    """The newest release of the older side."""
    first: Kernel
    """The oldest of the newer side."""
    older: Side
    """Whether the older side is the good one: then a defect came, else it went."""
    undecided: tuple[Kernel, ...]

    def __str__(self) -> str:
        if self.older is Side.GOOD:
            text = f"last good {self.last.package}, first bad {self.first.package}"
        else:
            text = f"last bad {self.last.package}, first good {self.first.package}"
        if self.undecided:
            names = ", ".join(kernel.package for kernel in self.undecided)
            text += f"; between them, not decided: {names}"
        return text


def between(kernels: Sequence[Kernel], one: Kernel, other: Kernel) -> list[Kernel]:
    """The releases from one to the other, both included, oldest first; one packaging of each
    upstream version, that of an end where it is one.

    Raises UsageError when the two are the same release.
    """
    low, high = sorted((one, other), key=_key)
    if low.upstream == high.upstream:
        raise UsageError(
            f"--good and --bad both mean {low.upstream}", hint="name two different releases"
        )
    by_upstream = {kernel.upstream: kernel for kernel in sorted(kernels, key=_key)}
    inside = [
        kernel
        for kernel in by_upstream.values()
        if version_key(low.upstream) < version_key(kernel.upstream) < version_key(high.upstream)
    ]
    return [low, *sorted(inside, key=_key), high]


def _key(kernel: Kernel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return version_key(kernel.upstream), version_key(kernel.package)


def bisect(
    kernels: Sequence[Kernel],
    *,
    good: Kernel,
    attempt: Attempt,
    say: Callable[[str], None] = lambda _: None,
) -> Boundary:
    """The boundary in `kernels` (see `between`), of which the end `good` is said to be good.

    Both ends are tried first.  A release without a verdict is left aside and its neighbours are
    tried.  Where the verdict changes more than once, which a stable series beside another may well
    do, one of the changes is found.

    Raises UsageError when the ends do not differ as said, LabError when one has no verdict.
    """
    oldest, newest = kernels[0], kernels[-1]
    older = Side.GOOD if good == oldest else Side.BAD
    newer = Side.BAD if older is Side.GOOD else Side.GOOD
    known: dict[int, Side] = {}

    def look(index: int) -> Side:
        tried = attempt(kernels[index])
        known[index] = tried.side
        why = f": {tried.why}" if tried.why else ""
        say(f"{kernels[index].package}: {tried.side}{why}")
        return tried.side

    found = {end: look(end) for end in (0, len(kernels) - 1)}
    for kernel, side in zip((oldest, newest), found.values(), strict=True):
        if side is Side.UNDECIDED:
            raise LabError(
                f"the test has no verdict on {kernel.package}, one of the two ends",
                hint="name another release for it",
            )
    if found[0] is found[len(kernels) - 1]:
        raise UsageError(
            f"{oldest.package} and {newest.package} are both {found[0]}: there is no boundary "
            "to be found between them"
        )
    if found[0] is not older:
        raise UsageError(
            f"it is the other way round: {oldest.package} is {found[0]}, "
            f"{newest.package} is {found[len(kernels) - 1]}",
            hint="exchange --good and --bad",
        )
    low, high = 0, len(kernels) - 1
    while candidates := [index for index in range(low + 1, high) if index not in known]:
        # The untried one that is nearest to the middle: with undecided ones about, not always it.
        index = min(candidates, key=lambda one: (abs(2 * one - low - high), one))
        side = look(index)
        if side is older:
            low = index
        elif side is newer:
            high = index
    undecided = tuple(kernels[index] for index in range(low + 1, high))
    return Boundary(kernels[low], kernels[high], older, undecided)
