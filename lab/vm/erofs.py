# SPDX-License-Identifier: MIT
"""erofs images in the cache, each with its sha256 beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from .. import cache, tools

_KEPT_S = 30 * 86400.0
"""How long an image that nobody uses stays. Each change of the environment makes a new one."""


def make_image(tree: Path, name: str) -> Path:
    """The cached image `name`; packed from `tree` if it is missing or not what was made."""
    return cached_image(name, lambda image, _: pack(tree, image))


def cached_image(name: str, build: Callable[[Path, Path], None]) -> Path:
    """The cached image `name`; if it is missing or a byte of it has changed, `build` is called
    with the path to write it to and an empty directory to work in."""
    place = cache.root() / "images" / name
    note = place.with_name(name + ".sha256")
    with cache.locked(name):
        if _intact(place, note):
            os.utime(note)  # used today: not to be pruned
        else:
            with cache.scratch() as directory:
                work = directory / "work"
                work.mkdir()
                image, its_note = directory / name, directory / note.name
                build(image, work)
                its_note.write_text(cache.digest(image))
                # The note last: an image without one counts as missing.
                note.unlink(missing_ok=True)
                cache.publish(image, place)
                cache.publish(its_note, note)
            _prune(place)
    return place


def _prune(made: Path) -> None:
    """Remove what was last used long ago of the kind that was just made. A guest that runs on
    such an image has it open and does not notice."""
    kind = made.name.partition("-")[0]
    for note in made.parent.glob(f"{kind}-*.sha256"):
        if time.time() - note.stat().st_mtime > _KEPT_S:
            note.unlink(missing_ok=True)
            note.with_suffix("").unlink(missing_ok=True)


def _intact(place: Path, note: Path) -> bool:
    try:
        return note.read_bytes() == cache.digest(place).encode()
    except FileNotFoundError:
        return False


def pack(tree: Path, image: Path) -> None:
    """Pack a tree, uncompressed: half a second instead of three, and nothing to unpack later.

    Everything belongs to root in the image, whoever runs the lab. File times are kept: Python
    compares them with those inside its .pyc files.
    """
    tools.run(["mkfs.erofs", "--all-root", image, tree], what=f"packing {tree.name} as erofs")
