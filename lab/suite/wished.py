# SPDX-License-Identifier: MIT
"""What pytest's options and marks ask of a guest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from ..wishes import KEYS, Wishes, from_options, read
from .stash import PROJECT

MARK = "guest"


def wishes_of(config: pytest.Config) -> Wishes:
    """What the options ask of every guest, over what the table does. Raises UsageError."""
    return typed(config).over(config.stash[PROJECT].guest)


def typed(config: pytest.Config) -> Wishes:
    """What the options alone ask for. Raises UsageError."""
    given = {key: config.getoption(f"lab_{key}") for key in KEYS}
    return from_options(given, prefix="--lab-")


def own_wishes(items: Iterable[pytest.Item], usual: Wishes) -> Mapping[str, Wishes]:
    """The wishes of the tests that ask for another guest than the usual one, by their ids.

    A mark on a test stands above one on its class, that above one on its module, and all above
    what is `usual`. Raises pytest.UsageError that names every mark that cannot be meant.
    """
    found: dict[str, Wishes] = {}
    wrong: dict[str, None] = {}
    for item in items:
        wishes = Wishes()
        for mark in item.iter_markers(MARK):
            one, whys = _read(mark)
            wrong |= dict.fromkeys(f"{item.nodeid}: {why}" for why in whys)
            wishes = wishes.over(one)
        if (whole := wishes.over(usual)) != usual:
            found[item.nodeid] = whole
    if wrong:
        raise pytest.UsageError("\n".join(wrong))
    return found


def _read(mark: pytest.Mark) -> tuple[Wishes, list[str]]:
    if mark.args:
        shown = ", ".join(map(repr, mark.args))
        return Wishes(), [f"guest({shown}): the mark takes {', '.join(KEYS)}, each by its name"]
    wishes, wrong = read(mark.kwargs)
    return wishes, [f"guest(): {one.key} {one.why}" for one in wrong]
