# SPDX-License-Identifier: MIT
"""What a source said it offers, kept for some hours: fifty kernels of one sweep ask once.

`listings/NAME.json` holds when and what, behind a line with the sha256 of the rest. So does
`listings/NAME.txt` of a text that a program printed, with what it followed from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import cache
from ..errors import LabError
from . import lock
from .model import Release
from .source import SourceUnreachable

FRESH_S = 6 * 3600.0
"""How long an answer stands for the source's own, in seconds."""
_PARTLY_FRESH_S = 600.0
"""The same when a part of the source did not answer."""


@dataclass(frozen=True, slots=True)
class Listing:
    """An answer of a source."""

    releases: tuple[Release, ...]
    complaints: tuple[str, ...]
    """Sentences about the parts of the source that did not answer."""
    asked: float
    """When, in seconds since the epoch."""

    @property
    def age_s(self) -> float:
        """Seconds since the source was asked; a clock that was set back makes it old."""
        age = time.time() - self.asked
        return age if age >= 0 else FRESH_S * 2

    def when(self) -> str:
        """The time it was asked, in words."""
        return datetime.fromtimestamp(self.asked, UTC).strftime("%Y-%m-%d %H:%M UTC")


def kept(
    name: str,
    ask: Callable[[], tuple[Sequence[Release], Sequence[str]]],
    *,
    fresh: bool,
    note: Callable[[str], None],
) -> Listing:
    """The listing called `name`: the kept one if it is of the last hours, else what `ask` returns
    (releases, and complaints about parts that did not answer).

    A source that does not answer leaves an older answer standing, and `note` hears it. Raises what
    `ask` raises when there is none.
    """
    place = cache.root() / "listings" / f"{name}.json"
    with cache.locked(f"listing-{name}"):
        old = _read(name)
        limit = _PARTLY_FRESH_S if old and old.complaints else FRESH_S
        if old is not None and not fresh and old.age_s < limit:
            return old
        try:
            releases, complaints = ask()
        except SourceUnreachable as error:
            if old is None:
                raise
            note(f"{error}; what it offers is as of {old.when()}")
            return old
        listing = Listing(tuple(releases), tuple(complaints), time.time())
        for complaint in complaints:
            note(complaint)
        with cache.scratch() as directory:
            made = directory / place.name
            made.write_text(_render(listing))
            cache.publish(made, place)
        return listing


def kept_text(name: str, facts: Sequence[object], ask: Callable[[], str]) -> str:
    """What `ask` returns, kept for some hours as long as the `facts` it follows from are the same.
    Raises what `ask` raises."""
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    place = cache.root() / "listings" / f"{name}.txt"
    with cache.locked(f"listing-{name}"):
        with contextlib.suppress(OSError, ValueError):
            digest, its_key, body = place.read_text().split("\n", 2)
            age = time.time() - place.stat().st_mtime
            if its_key == key and digest == _digest(key, body) and 0 <= age < FRESH_S:
                return body
        text = ask()
        with cache.scratch() as directory:
            made = directory / place.name
            made.write_text(f"{_digest(key, text)}\n{key}\n{text}")
            cache.publish(made, place)
        return text


def _digest(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()


def _render(listing: Listing) -> str:
    body = json.dumps(
        {
            "asked": listing.asked,
            "complaints": listing.complaints,
            "releases": [lock.entry_of(release) for release in listing.releases],
        },
        indent=1,
    )
    return f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def _read(name: str) -> Listing | None:
    """The kept listing; None if there is none or a byte of it has changed."""
    try:
        text = (cache.root() / "listings" / f"{name}.json").read_text()
        digest, _, body = text.partition("\n")
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            return None
        raw = json.loads(body)
        releases = [lock.release_of(entry, name, locked=False) for entry in raw["releases"]]
        return Listing(tuple(releases), tuple(raw["complaints"]), float(raw["asked"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, LabError):
        return None
