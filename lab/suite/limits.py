# SPDX-License-Identifier: MIT
"""How long a test may take, by its marks."""

from __future__ import annotations

import pytest

from ..programs.items import ProgramItem

BASE_SECONDS = 10.0
SLOW_FACTOR = 6.0


def base_seconds(item: pytest.Item) -> float:
    """How long a test may take on this very host, in seconds.

    Raises pytest.UsageError for a mark `timeout` that pytest-timeout would end the guest's session
    for.
    """
    if isinstance(item, ProgramItem):
        return item.host_seconds
    mark = item.get_closest_marker("timeout")
    given = None if mark is None else _limit(item.nodeid, mark)
    if given is not None and given > 0:  # 0 switches pytest-timeout off; there is a limit all the
        return given  # same in a guest
    return BASE_SECONDS * (SLOW_FACTOR if item.get_closest_marker("slow") else 1.0)


def _limit(name: str, mark: pytest.Mark) -> float | None:
    """The seconds of a mark; None if it names the method or the scope alone."""
    words = [repr(arg) for arg in mark.args]
    words += [f"{key}={value!r}" for key, value in mark.kwargs.items()]
    said = f"{name}: timeout({', '.join(words)})"
    try:
        given, method, func_only = _read(*mark.args, **mark.kwargs)
    except TypeError:
        raise pytest.UsageError(
            f"{said}: the mark takes a number of seconds, method= and func_only=, each once"
        ) from None
    known = method in (None, "signal", "thread") and isinstance(func_only, bool | None)
    if not words or not known:
        raise pytest.UsageError(
            f"{said}: the mark takes a number of seconds, method='signal' or 'thread', or "
            "func_only=True or False, and at least one of them"
        )
    try:
        return None if given is None else float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise pytest.UsageError(f"{said} is not a number of seconds") from None


def _read(
    timeout: object = None, method: object = None, *, func_only: object = None
) -> tuple[object, object, object]:
    """What the mark's arguments mean (pytest-timeout 2.4)."""
    return timeout, method, func_only
