# SPDX-License-Identifier: MIT
"""Playing an older kernel: `IOXIDE_CAPS=-inc,-min_wait` takes capabilities away from this process.

The probe then reports them as not observed, and the reactor refuses what needs them, as both do on
a kernel that lacks them.  A mask only ever takes away: nothing can give a kernel what it has not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ioxide._probe.findings import Capability

__all__ = ["NOTE", "VARIABLE", "MaskError", "active", "parse", "render"]

VARIABLE = "IOXIDE_CAPS"

NOTE = "masked"
"""What the probe says of a capability that was taken away."""


class MaskError(ValueError):
    """The mask cannot be meant; the message has the word that is wrong and what is right."""


def parse(text: str) -> frozenset[Capability]:
    """The capabilities that ``text`` takes away: words like ``-inc``, separated by commas.

    Upper and lower case are the same, and spaces around a word are nothing.

    :raises MaskError: a word without the minus sign, or one that names no capability.
    """
    taken = set()
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    for word in words:
        example = f"write it like {VARIABLE}=-inc,-min_wait"
        if word.startswith("+"):
            raise MaskError(
                f"{VARIABLE}: {word!r} would give what the kernel may not have, and a mask only "
                f"takes away; {example}"
            )
        if not word.startswith("-"):
            raise MaskError(f"{VARIABLE}: {word!r} does not begin with a minus sign; {example}")
        try:
            taken.add(Capability(word[1:].strip().upper()))
        except ValueError:
            known = ", ".join(capability.lower() for capability in Capability)
            raise MaskError(
                f"{VARIABLE}: {word!r} names no capability; known are {known}"
            ) from None
    return frozenset(taken)


def active() -> frozenset[Capability]:
    """What is taken away from this process, by its environment.

    :raises MaskError: as :func:`parse`.
    """
    return parse(os.environ.get(VARIABLE, ""))


def render(capabilities: Iterable[str]) -> str:
    """The text that takes these away; :func:`parse` reads it."""
    return ",".join(f"-{name.lower()}" for name in sorted(capabilities))
