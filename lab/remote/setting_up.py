# SPDX-License-Identifier: MIT
"""The repository's own command that makes a guest ready: the key `setup` of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import GuestLost, LabError
from ..vm import Guest
from .losses import RunOver
from .process import TREE

SETUP_S, SETUP_TAIL = 300.0, 4000
"""Its time limit, and so many characters of what it said are shown."""


def set_up(guest: Guest, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run it in the tree that was pushed. Raises RunOver when it fails, GuestLost."""
    env = {"PYTHONDONTWRITEBYTECODE": "1", **environment}
    limit = SETUP_S + 10 * guest.slowdown
    words = " ".join(command)
    try:
        done = guest.run(command, env=env, cwd=TREE, timeout_s=limit)
    except TimeoutError as error:
        raise RunOver(f"the set-up command {words!r} did not end: {error}") from error
    except GuestLost:
        raise
    except LabError as error:  # no such command, say
        raise RunOver(f"the set-up command {words!r} did not run: {error}") from error
    if done.status:
        said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
        raise RunOver(
            f"the set-up command {words!r} ended with status {done.status} in the guest",
            tail=said[-SETUP_TAIL:],
        )
