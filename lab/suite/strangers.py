# SPDX-License-Identifier: MIT
"""Files in a guest's tree that were not sent there, and that the next pytest might load."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5


class Strangers:
    """Those of one guest, from one pytest in it to the next."""

    def __init__(self) -> None:
        self._known: frozenset[str] | None = None

    def problem(self, found: Iterable[str], after: str) -> str:
        """What is wrong with a pytest that begins behind the test `after` and finds these files, as
        a sentence; empty if nothing is.

        What is there before the first pytest of a guest was made by the repository's own set-up
        command. The tree is not made anew for the next one: the set-up command need not bear a
        second run.
        """
        before, self._known = self._known, frozenset(found)
        if before is None or not (new := sorted(self._known - before)):
            return ""
        more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
        return (
            f"tests left {', '.join(new[:SHOWN])}{more} in the guest's tree, and pytest began "
            f"again there after {after}: what ran from then on may not be what was sent"
        )
