# SPDX-License-Identifier: MIT
"""The probe of a guest's kernel, run in the guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..facts.probed import Probed
from ..vm import Guest
from .losses import RunOver
from .process import ENVIRONMENT, TREE

_BASE_S, _PER_SLOWDOWN_S = 60.0, 10.0


def probed(
    guest: Guest,
    command: Sequence[str],
    *,
    cwd: str = TREE,
    environment: Mapping[str, str] | None = None,
    keep: Path | None = None,
) -> Probed:
    """What the guest's kernel can do, by the command that prints it in the tree at `cwd`.

    What the probe printed is written to the file `keep`. Raises RunOver when there is no report, or
    one of another kernel; and GuestLost.
    """
    limit = _BASE_S + _PER_SLOWDOWN_S * guest.slowdown
    env = {**ENVIRONMENT, **(environment or {})}
    try:
        done = guest.run(command, env=env, cwd=cwd, timeout_s=limit)
    except TimeoutError as error:
        raise RunOver(f"the probe in the guest did not end: {error}") from error
    if keep is not None:
        with suppress(OSError):  # a full disk; results.json has it, too
            keep.write_bytes(done.stdout)
    try:
        report = Probed.from_json(done.stdout)
    except ValueError as error:
        words = done.stderr.decode("utf-8", "backslashreplace")
        raise RunOver(
            f"the probe in the guest ended with status {done.status} and no report: {error}",
            tail=words,
        ) from error
    if done.status and report.error is None:
        raise RunOver(
            f"the probe in the guest printed a report without an error, and ended with status "
            f"{done.status}",
            tail=done.stderr.decode("utf-8", "backslashreplace"),
        )
    if report.release != guest.uname:
        raise RunOver(f"the probe speaks of {report.release!r}, the guest is {guest.uname!r}")
    return report
