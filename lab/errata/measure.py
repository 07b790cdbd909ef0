# SPDX-License-Identifier: MIT
"""One release's errata, measured in a guest of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..errors import GuestLost, LabError
from ..facts.errata import Finding, Seen
from ..facts.kernel import Kernel
from ..remote.identity import Expected
from ..remote.losses import Gone
from ..remote.process import TREE, PythonProcess, check_release
from ..remote.setting_up import set_up
from ..rules import dmesg
from ..rules.dmesg import Allowance
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

    def prepare(self, results: Path) -> object:
        """Fetch and make what a guest takes, files to `results`. Raises LabError."""

    def boot(self, results: Path) -> AbstractContextManager[Guest]:
        """A fresh guest whose files go to `results`. Raises LabError."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What each guest of a sweep is given, the same on every release."""

    tar: bytes
    tree_sha256: str
    extension_sha256: str
    bytecode_sha256: str
    environment: Mapping[str, str]
    """What a process of reproducers finds in its environment."""
    setup: Sequence[str] = ()
    """The repository's own command, run before the first reproducer."""
    allowed: Sequence[Allowance] = ()
    """What of a kernel's words the repository calls no complaint."""

    def expected(self, guest: Guest) -> Expected:
        """What a process in this guest has to prove."""
        return Expected(
            kernel=guest.kernel.upstream,
            release=guest.kernel.release,
            nonce=guest.nonce,
            tree_sha256=self.tree_sha256,
            extension_sha256=self.extension_sha256,
            bytecode_sha256=self.bytecode_sha256,
        )


@dataclass(slots=True)
class Found:
    """What was found on one release, by reproducer."""

    findings: dict[str, Finding] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    """What its kernel complained of before any reproducer ran."""


def measure(lab: Lab, sent: Sent, names: Sequence[str], results: Path) -> Found:
    """What each of the reproducers finds on one kernel.

    A reproducer that takes its process or its guest down is not decided, the others go on without
    it.  Raises LabError when no guest comes up, or what it says of itself is not true.
    """
    found = Found()
    for number in range(1, BOOTS + 1):
        where = results / f"guest-{number}" if number > 1 else results
        where.mkdir(parents=True, exist_ok=True)
        try:
            with lab.boot(where) as guest:
                check_release(guest)
                guest.push_tree(sent.tar, TREE)
                if sent.setup:
                    set_up(guest, sent.setup, sent.environment)
                found.complaints += _complaints(guest, sent)
                _in_guest(guest, names, found, where, sent)
        except GuestLost as lost:
            if not found.findings and number == BOOTS:
                raise
            _write_tail(where, lost)
            continue
        if all(name in found.findings for name in names):
            break
    never = Finding(None, "never ran")
    found.findings = {name: found.findings.get(name, never) for name in names}
    return found


def _complaints(guest: Guest, sent: Sent) -> list[str]:
    """What the kernel complained of since it was last asked. Raises GuestLost, LabError."""
    records = _heard(guest, "while it came up")
    return [splat.line for splat in dmesg.scan_records(records, guest.kernel, sent.allowed)]


def _heard(guest: Guest, when: str) -> Sequence[Record]:
    said = guest.read_kernel_log()
    if said.gaps:
        raise LabError(f"what the kernel said {when} is not known: {said.gaps[0]}")
    return said.records


def _in_guest(guest: Guest, names: Sequence[str], whole: Found, results: Path, sent: Sent) -> None:
    """Run what is not found yet, in as many processes as it takes. Raises GuestLost, LabError."""
    found = whole.findings
    while todo := [name for name in names if name not in found]:
        process = PythonProcess(
            guest,
            ("-X", "faulthandler", "-m", f"{__package__}.reproduce", *todo),
            name="process of reproducers",
            kinds=KINDS,
            log=results / "reproducers.log",
            environment={KMSG_VARIABLE: "/dev/kmsg", **sent.environment},
        )
        begun = _Begun(todo[0])
        try:
            process.prove(Said.HELLO, sent.expected(guest), _limit_s(guest))
            _listen(process, guest, found, begun)
        except Gone as gone:
            if gone.guest_too:
                why = f"the guest was lost: {gone}"
                found[begun.name] = Finding(None, why)
                _enter(found, last_words(guest, todo, sent.allowed))
                raise GuestLost(str(gone), console_tail=gone.tail) from gone
            printed = process.output_tail()[-_WORDS:]
            found[begun.name] = Finding(None, f"{gone}: {printed}" if printed else str(gone))
        if begun.name not in found:
            # To ask it again would be without end.
            process.lied(f"it was done without a word of {begun.name!r}")
        records = _heard(guest, "of the reproducers")
        by_name = splats(records, todo, guest.kernel, sent.allowed)
        whole.complaints += by_name.pop("", ())
        _enter(found, by_name)


def _enter(found: dict[str, Finding], by_name: Mapping[str, tuple[str, ...]]) -> None:
    for name, lines in by_name.items():
        if name in found:
            found[name] = replace(found[name], splats=lines)


def splats(
    log: Sequence[Record],
    names: Sequence[str],
    kernel: Kernel,
    allowed: Sequence[Allowance] = (),
) -> dict[str, tuple[str, ...]]:
    """By reproducer, the complaints between its mark in the kernel log and the next one's; those
    before the first mark are under the empty name."""
    marks = {mark_of(name): name for name in names}
    running = ""
    pieces: dict[str, list[Record]] = {name: [] for name in ("", *names)}
    for record in log:
        if not record.from_kernel:
            running = marks.get(record.text.strip(), running)
        pieces[running].append(record)
    found = {name: dmesg.scan_records(piece, kernel, allowed) for name, piece in pieces.items()}
    return {name: tuple(splat.line for splat in lines) for name, lines in found.items() if lines}


def last_words(
    guest: Guest, names: Sequence[str], allowed: Sequence[Allowance] = ()
) -> dict[str, tuple[str, ...]]:
    """By reproducer, the complaints on the console of a guest that died while the last of them ran:
    its log was not read. None from a line on by which its emulator is known to have killed it."""
    said = guest.console_log().replace(b"\r", b"")
    lines = said.decode("utf-8", "backslashreplace").splitlines()
    if (sign := first_sign(lines, guest.deaths)) is not None:
        lines = lines[: sign[0]]
    marks = [(mark_of(name), name) for name in names]
    pieces: dict[str, list[str]] = {}
    running: list[str] = []
    for line in lines:
        for mark, name in marks:
            if line.rstrip().endswith(mark):
                running = pieces.setdefault(name, [])
        if not dmesg.is_mark(line):
            running.append(line)
    found = {name: dmesg.scan_lines(piece, guest.kernel, allowed) for name, piece in pieces.items()}
    return {name: tuple(splat.line for splat in lines) for name, lines in found.items() if lines}


@dataclass(slots=True)
class _Begun:
    """Which reproducer runs, or is the next to."""

    name: str


def _listen(process: PythonProcess, guest: Guest, found: dict[str, Finding], begun: _Begun) -> None:
    """Enter what the process finds, to its end. Raises Gone when that is no good one, RunOver."""
    limit = _limit_s(guest)
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
            case Said.HELLO:
                process.lied("it said twice who it is")
            case Said.BEGUN:
                begun.name = fields["id"]
            case Said.FOUND if fields["id"] != begun.name:
                process.lied(f"it found something of {fields['id']!r}, which it did not begin")
            case Said.FOUND if not fields["seen"]:
                found[begun.name] = Finding(None, fields["evidence"])
            case Said.FOUND if fields["seen"] not in list(Seen):
                process.lied(f"it saw {fields['seen']!r}, which is no finding")
            case Said.FOUND:
                found[begun.name] = Finding(Seen(fields["seen"]), fields["evidence"])
            case Said.DONE:
                done = True


def _limit_s(guest: Guest) -> float:
    return _BASE_S + _PER_SLOWDOWN_S * guest.slowdown


def _write_tail(results: Path, lost: GuestLost) -> None:
    (results / "lost.txt").write_text(f"{lost.reason}\n\n{lost.console_tail}\n")
