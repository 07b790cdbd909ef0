# SPDX-License-Identifier: MIT
"""One release's errata, measured in a guest of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import GuestLost, LabError
from ..facts.errata import Finding, Seen
from ..facts.kernel import Kernel
from ..rules import dmesg
from ..vm import Control, Event, Exited, Guest, Output, Process
from ..vm.emulator import first_sign
from ..vm.kmsg import Record
from .reproduce import KMSG_VARIABLE, mark_of

TREE = "/tmp/ioxide-under-test"
BOOTS = 2
"""Guests per release at the most: what QEMU's emulation takes down once, it seldom does twice."""
_BASE_S, _PER_SLOWDOWN_S = 60.0, 6.0
_WORDS = 4096
"""Bytes that are kept of what a process printed."""


class Lab(Protocol):
    """Gives guests of one kernel."""

    def boot(self, results: Path) -> AbstractContextManager[Guest]:
        """A fresh guest whose files go to `results`. Raises LabError."""


class _Ended(Exception):
    """The process is gone, the guest is not."""


def measure(lab: Lab, tar: bytes, names: Sequence[str], results: Path) -> dict[str, Finding]:
    """What each of the reproducers finds on one kernel.

    A reproducer that takes its process or its guest down is not decided, the others go on without
    it.  Raises LabError when no guest comes up.
    """
    found: dict[str, Finding] = {}
    for number in range(1, BOOTS + 1):
        where = results / f"guest-{number}" if number > 1 else results
        where.mkdir(parents=True, exist_ok=True)
        try:
            with lab.boot(where) as guest:
                if guest.uname != guest.kernel.release:
                    raise LabError(
                        f"the guest calls itself {guest.uname!r}, {guest.kernel.release!r} was "
                        "booted"
                    )
                guest.push_tree(tar, TREE)
                _in_guest(guest, names, found)
        except GuestLost as lost:
            if not found and number == BOOTS:
                raise
            _write_tail(where, lost)
            continue
        if all(name in found for name in names):
            break
    return {name: found.get(name, Finding(None, "never ran")) for name in names}


def _in_guest(guest: Guest, names: Sequence[str], found: dict[str, Finding]) -> None:
    """Run what is not found yet, in as many processes as it takes. Raises GuestLost."""
    while todo := [name for name in names if name not in found]:
        guest.read_kernel_log()  # what it said before is no reproducer's
        argv = (sys.executable, "-m", "lab.errata.reproduce", *todo)
        env = {
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "LC_ALL": "C.UTF-8",
            KMSG_VARIABLE: "/dev/kmsg",
        }
        listener = _Listener(guest, guest.spawn(argv, env=env, cwd=TREE))
        try:
            listener.listen(found)
        except GuestLost as lost:
            name = listener.running or todo[0]
            why = f"the guest was lost: {lost.reason}"
            found[name] = Finding(None, why, last_words(guest, name))
            raise
        except _Ended as ended:
            found[listener.running or todo[0]] = Finding(None, str(ended))
        said = guest.read_kernel_log()
        if said.gaps:
            raise LabError(f"what the kernel said of the reproducers is not known: {said.gaps[0]}")
        for name, lines in splats(said.records, todo, guest.kernel).items():
            if name in found:
                found[name] = replace(found[name], splats=lines)


def splats(
    log: Sequence[Record], names: Sequence[str], kernel: Kernel
) -> dict[str, tuple[str, ...]]:
    """By reproducer, the complaints between its mark in the kernel log and the next one's."""
    marks = {mark_of(name): name for name in names}
    running = ""
    pieces: dict[str, list[Record]] = {name: [] for name in ("", *names)}
    for record in log:
        if not record.from_kernel:
            running = marks.get(record.text.strip(), running)
        pieces[running].append(record)
    found = {name: dmesg.scan_records(piece, kernel) for name, piece in pieces.items() if name}
    return {name: tuple(splat.line for splat in lines) for name, lines in found.items() if lines}


def last_words(guest: Guest, name: str) -> tuple[str, ...]:
    """The complaints on the console of a guest that died while this reproducer ran; none if its
    emulator is known to have killed it."""
    said = guest.console_log().replace(b"\r", b"").rpartition(mark_of(name).encode())[2]
    lines = said.decode("utf-8", "backslashreplace").splitlines()
    if (sign := first_sign(lines, guest.deaths)) is not None:
        lines = lines[: sign[0]]
    return tuple(splat.line for splat in dmesg.scan_lines(lines, guest.kernel))


class _Listener:
    """Reads what a process of `lab.errata.reproduce` says."""

    def __init__(self, guest: Guest, process: Process) -> None:
        self.running = ""
        self._guest, self._process = guest, process
        self._limit = _BASE_S + _PER_SLOWDOWN_S * guest.slowdown
        self._words = bytearray()

    def listen(self, found: dict[str, Finding]) -> None:
        """To the process's end. Raises _Ended when it is not a good one, and GuestLost."""
        done = False
        deadline = time.monotonic() + self._limit
        while True:
            event = self._next(deadline)
            if isinstance(event, Exited):
                if not done:
                    words = self._words[-300:].decode("utf-8", "backslashreplace").strip()
                    raise _Ended(f"its process ended with {event.status}: {words}")
                return
            if isinstance(event, Output):
                # Whatever a reproducer prints: a sign of life only.
                self._words = (self._words + event.data)[-_WORDS:]
            elif isinstance(event, Control):
                deadline = time.monotonic() + self._limit
                done = self._hear(event.obj, found) or done

    def _hear(self, said: Mapping[str, Any], found: dict[str, Finding]) -> bool:
        if "release" in said and said["release"] != self._guest.uname:
            raise LabError(f"the process runs on {said['release']!r}, not {self._guest.uname!r}")
        if "begun" in said:
            self.running = str(said["begun"])
        elif "name" in said:
            found[str(said["name"])] = Finding(Seen(said["seen"]), str(said["evidence"]))
            self.running = ""
        return "done" in said

    def _next(self, deadline: float) -> Event:
        try:
            return self._process.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            self._process.kill()
            why = f"it said nothing for {self._limit:.0f} s and was killed"
        try:
            while not isinstance(self._process.receive(30.0), Exited):
                pass
        except TimeoutError:
            raise GuestLost(f"{why}, and did not die") from None
        raise _Ended(why)


def _write_tail(results: Path, lost: GuestLost) -> None:
    (results / "lost.txt").write_text(f"{lost.reason}\n\n{lost.console_tail}\n")
