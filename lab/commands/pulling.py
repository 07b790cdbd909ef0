# SPDX-License-Identifier: MIT
"""`--pull`: files of a guest that are wanted here."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import GuestLost, LabError, UsageError
from ..vm import Guest
from .booting import say

_FIRST_COLON = re.compile(r"(?<!\\):")
MOST_TOLD = 5
"""So many of the things that were left out are named one by one."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One thing to bring."""

    path: str
    """In the guest, absolute."""
    destination: Path


def asked(text: str, cwd: str) -> Pull:
    """What --pull says, in a guest whose command starts in `cwd`. Raises UsageError."""
    words = _FIRST_COLON.split(text, maxsplit=1)
    named = words[0].replace("\\:", ":")
    path = posixpath.normpath(posixpath.join(cwd, named))
    if not named or "\0" in text or path.strip("/") == "":
        raise UsageError(f"--pull {text!r} names no file or directory of the guest")
    if words[1:] == [""]:
        raise UsageError(f"--pull {text!r} names no place here behind its colon")
    place = Path(words[1].replace("\\:", ":")) if words[1:] else Path()
    if place.is_dir() or (text.endswith("/") and len(words) > 1):
        place = place / posixpath.basename(path)
    if not place.parent.is_dir():
        raise UsageError(f"--pull {text!r}: there is no directory {place.parent} here")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--pull {text!r}: the directory {place.parent} cannot be written")
    return Pull(path, place)


def all_asked(texts: Sequence[str], cwd: str) -> Sequence[Pull]:
    """As `asked`, and no two of them to one place."""
    pulls = [asked(text, cwd) for text in texts]
    for number, one in enumerate(pulls):
        if any(one.destination == other.destination for other in pulls[:number]):
            raise UsageError(
                f"--pull {one.path}: another one comes to {one.destination} as well",
                hint="name another place behind a colon",
            )
    return pulls


def done(guest: Guest, pulls: Sequence[Pull]) -> bool:
    """Bring all of them, saying what cannot be had; whether all came. Raises GuestLost."""
    whole = True
    for one in pulls:
        try:
            pulled = guest.pull(one.path, one.destination)
        except GuestLost:
            raise
        except (LabError, TimeoutError) as error:
            say(f"--pull {one.path}: {error}")
            whole = False
            continue
        for what in pulled.left_out[:MOST_TOLD]:
            say(f"--pull {one.path}: left out {what}")
        if (more := len(pulled.left_out) - MOST_TOLD) > 0:
            say(f"--pull {one.path}: left out {more} more")
    return whole
