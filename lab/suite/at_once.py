# SPDX-License-Identifier: MIT
"""How many guests there are at once.

pytest-xdist's `-n N` says so: a person who asks for N workers and for a kernel wants N
guests. Its own workers are processes of the host, which a test in a guest has no use for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ..errors import COMMAND


class Auto(int):
    """What `-n auto` becomes until it is known how many guests suit the machine."""


def refuse_loop(config: pytest.Config) -> None:
    """Raises pytest.UsageError for `-f` of pytest-xdist."""
    if getattr(config.option, "looponfail", False):
        raise pytest.UsageError("--looponfail: a run in guests ends; repeat it with --lf")


def take_over(config: pytest.Config) -> None:
    """See to it that pytest-xdist starts no workers for a run in guests.

    To be called before its own pytest_configure. Raises pytest.UsageError for what it cannot mean
    here.
    """
    option = config.option
    number = getattr(option, "numprocesses", None)
    if getattr(option, "px", None):
        raise pytest.UsageError("--px: the workers are guests, and no proxy starts them")
    if number is None and getattr(option, "tx", None):
        raise pytest.UsageError(
            f"--tx={option.tx[0]}: the workers of a run in guests are the guests; "
            "-n N says how many there are at once; without a kernel, --tx can start a worker of "
            f"xdist's own by `{COMMAND} run`, which gives no verdicts"
        )
    if getattr(option, "dist", "no") not in ("no", "load"):
        raise pytest.UsageError(
            f"--dist={option.dist}: the lab hands out up to eight neighbours of a file at a time, "
            "and in no other way; leave the option out"
        )
    if number is not None:
        option.dist, option.tx = "no", []


def asked(config: pytest.Config) -> int | None:
    """How many guests a person asked for, None if nobody did. Raises pytest.UsageError."""
    ways: Mapping[str, Any] = {
        "--lab-guests": config.getoption("lab_guests"),
        "-n": getattr(config.option, "numprocesses", None),
    }
    given = {flag: value for flag, value in ways.items() if value is not None}
    if len(given) == 2:
        raise pytest.UsageError("-n and --lab-guests both say how many guests there are at once")
    for flag, value in given.items():
        if value < 1:
            raise pytest.UsageError(f"{flag} {value}: tests need at least one guest")
        if isinstance(value, Auto):
            return None
        most = getattr(config.option, "maxprocesses", None)
        return min(int(value), most) if most else int(value)
    return None


def bounded(number: int, at_most: int) -> tuple[int, str]:
    """The number of guests that this machine has room for, and a line if it is not `number`."""
    if number <= at_most:
        return number, ""
    guests = "1 guest" if at_most == 1 else f"{at_most} guests"
    return at_most, f"{guests} at once, not {number}: there is no room for more on this machine"
