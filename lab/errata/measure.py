# SPDX-License-Identifier: MIT
"""One release's errata, measured in a guest of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from ..errors import GuestLost, LabError
from ..facts.errata import Finding, Seen
from ..facts.kernel import Kernel
from ..remote.losses import Gone
from ..remote.process import TREE, PythonProcess, check_release
from ..rules import dmesg
from ..vm import Exited, Guest
from ..vm.emulator import first_sign
from ..vm.kmsg import Record
from .reproduce import KINDS, KMSG_VARIABLE, Said, mark_of

BOOTS = 2
"""Guests per release at the most: what QEMU's emulation takes down once, it seldom does twice."""
_BASE_S, _PER_SLOWDOWN_S = 60.0, 6.0
_WORDS = 300
"""So many of the last characters that a process printed tell how it ended."""


class Lab(Protocol):
    """Gives guests of one kernel."""

    def boot(self, results: Path) -> AbstractContextManager[Guest]:
        """A fresh guest whose files go to `results`. Raises LabError."""


def measure(
    lab: Lab,
    tar: bytes,
    names: Sequence[str],
    results: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Finding]:
    """What each of the reproducers finds on one kernel; `environment` is theirs.

    A reproducer that takes its process or its guest down is not decided, the others go on without
    it.  Raises LabError when no guest comes up.
    """
    found: dict[str, Finding] = {}
    for number in range(1, BOOTS + 1):
        where = results / f"guest-{number}" if number > 1 else results
        where.mkdir(parents=True, exist_ok=True)
        try:
            with lab.boot(where) as guest:
                check_release(guest)
                guest.push_tree(tar, TREE)
                _in_guest(guest, names, found, where, environment)
        except GuestLost as lost:
            if not found and number == BOOTS:
                raise
            _write_tail(where, lost)
            continue
        if all(name in found for name in names):
            break
    return {name: found.get(name, Finding(None, "never ran")) for name in names}


def _in_guest(
    guest: Guest,
    names: Sequence[str],
    found: dict[str, Finding],
    results: Path,
    environment: Mapping[str, str],
) -> None:
    """Run what is not found yet, in as many processes as it takes. Raises GuestLost, LabError."""
    while todo := [name for name in names if name not in found]:
        guest.read_kernel_log()  # what it said before is no reproducer's
        process = PythonProcess(
            guest,
            ("-X", "faulthandler", "-m", f"{__package__}.reproduce", *todo),
            name="process of reproducers",
            kinds=KINDS,
            log=results / "reproducers.log",
            environment={KMSG_VARIABLE: "/dev/kmsg", **environment},
        )
        begun = _Begun(todo[0])
        try:
            _listen(process, guest, found, begun)
        except Gone as gone:
            if gone.guest_too:
                why = f"the guest was lost: {gone}"
                found[begun.name] = Finding(None, why, last_words(guest, begun.name))
                raise GuestLost(str(gone), console_tail=gone.tail) from gone
            words = process.output_tail()[-_WORDS:]
            found[begun.name] = Finding(None, f"{gone}: {words}" if words else str(gone))
        if begun.name not in found:
            # To ask it again would be without end.
            process.lied(f"it was done without a word of {begun.name!r}")
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


@dataclass(slots=True)
class _Begun:
    """Which reproducer runs, or is the next to."""

    name: str


def _listen(process: PythonProcess, guest: Guest, found: dict[str, Finding], begun: _Begun) -> None:
    """Enter what the process finds, to its end. Raises Gone when that is no good one, RunOver."""
    limit = _BASE_S + _PER_SLOWDOWN_S * guest.slowdown
    done = False
    while True:
        said = process.receive(time.monotonic() + limit)
        if said is None:
            raise process.hung(f"it said nothing for {limit:.0f} s")
        if isinstance(said, Exited):
            if not done:
                raise process.ended(said)
            return
        fields = said.fields
        match said.kind:
            case Said.RELEASE if fields["release"] != guest.uname:
                process.lied(f"it runs on {fields['release']!r}, not {guest.uname!r}")
            case Said.BEGUN:
                begun.name = fields["id"]
            case Said.FOUND if fields["id"] != begun.name:
                process.lied(f"it found something of {fields['id']!r}, which it did not begin")
            case Said.FOUND if fields["seen"] not in list(Seen):
                process.lied(f"it saw {fields['seen']!r}, which is no finding")
            case Said.FOUND:
                found[begun.name] = Finding(Seen(fields["seen"]), fields["evidence"])
            case Said.DONE:
                done = True


def _write_tail(results: Path, lost: GuestLost) -> None:
    (results / "lost.txt").write_text(f"{lost.reason}\n\n{lost.console_tail}\n")
