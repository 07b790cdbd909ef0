# SPDX-License-Identifier: MIT
"""Everything that a program starts, so that it can be ended together with it.

In a guest that is a control group: nothing gets out of it by forking or by a session of its own.
Where none can be made, it is the program's session.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_PROCESSES = 1024
"""Of one program at once: one that forks without end would use up the memory of a guest."""
PREFIX = "lab-program-"
_DYING_S = 5.0


class NoControlGroup(Exception):
    """There is none to be had where there must be one; the message is a sentence."""


class Confinement:
    """One program's control group, or without `directory` its session."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._leader = 0

    def enter(self) -> None:
        """Move the calling process in: between fork and exec, in the child."""
        if self._directory is not None:  # outside of it the program could not be ended for certain
            (self._directory / "cgroup.procs").write_text("0")
        # When memory is short, it is to go before the pytest that judges it.
        _write(Path("/proc/self/oom_score_adj"), "500")

    def of(self, leader: int) -> None:
        """The program runs, with this process id; it leads a session of its own."""
        self._leader = leader

    def kill(self) -> None:
        """End all of it, and wait until it has ended."""
        if self._directory is not None:
            _end(self._directory)
        elif self._leader:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, signal.SIGKILL)


@contextmanager
def confinement(*, needed: bool = False) -> Iterator[Confinement]:
    """A fresh one. What is still in it at the end is killed, and so is what was left by a process
    that ended before it could do this. Raises NoControlGroup where one is `needed`."""
    top = control_groups()
    if top is None:
        if needed:
            raise NoControlGroup("it was not run: no control groups (version 2) are mounted here")
        alone = Confinement(None)
        try:
            yield alone
        finally:
            alone.kill()
        return
    end_leftovers(top)
    directory = top / f"{PREFIX}{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:  # no permission: a host, not a guest
        if needed:
            why = f"it was not run: no control group can be made for it: {error.strerror}"
            raise NoControlGroup(why) from error
        directory = None  # type: ignore[assignment]
    else:
        # The limit is not to be had where another hierarchy has this controller.
        if _write(top / "cgroup.subtree_control", "+pids"):
            _write(directory / "pids.max", str(MOST_PROCESSES))
    found = Confinement(directory)
    try:
        yield found
    finally:
        found.kill()
        _remove(directory)


def control_groups() -> Path | None:
    """Where control groups of version 2 are mounted; None if nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place)
    return None


def end_leftovers(top: Path) -> None:
    """Kill the programs of processes that are gone."""
    for directory in top.glob(f"{PREFIX}*"):
        owner = directory.name.removeprefix(PREFIX)
        if not Path(f"/proc/{owner}").exists():
            _end(directory)
            _remove(directory)


def _end(directory: Path) -> None:
    deadline = time.monotonic() + _DYING_S
    while _populated(directory) and time.monotonic() < deadline:
        _write(directory / "cgroup.kill", "1")  # Linux 5.14
        time.sleep(0.005)


def _populated(directory: Path) -> bool:
    try:
        return "populated 1" in (directory / "cgroup.events").read_text()
    except OSError:
        return False


def _remove(directory: Path | None) -> None:
    if directory is None:
        return
    # A program that is root in its guest may have made groups of its own below it.
    for below, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            Path(below).rmdir()


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True
