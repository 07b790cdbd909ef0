# SPDX-License-Identifier: MIT
"""Guests, releases and errata that exist only in tests of sweeps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import project
from lab.arch import Death
from lab.errata.measure import Sent
from lab.errata.reproduce import Said, mark_of
from lab.errors import GuestLost, LabError
from lab.facts.errata import Finding, Seen
from lab.kernels import Kernel
from lab.remote.wire import Numberer
from lab.rules.errata import Catalogue, Erratum
from lab.vm import Completed, Control, Event, Exited, Output, Stream
from lab.vm.kmsg import Piece, Record

REPRODUCERS = "tests/kernel_gated/errata"
PROJECT = project.read(Path(__file__).parents[2])
NODES = [f"{REPRODUCERS}/test_errata_it.py::test_{letter}" for letter in "abc"]
COMPLAINT = "WARNING: CPU: 0 PID: 7 at io_uring/kbuf.h:146 io_recv_finish+0x37c/0x4a0"
HASHES = {"tree_sha256": "t", "extension_sha256": "e", "bytecode_sha256": "b"}
SENT = Sent(b"tar", "t", "e", "b", environment={"PYTHONPATH": "here"})
PRESENT, ABSENT = Finding(Seen.PRESENT, "seen"), Finding(Seen.ABSENT, "")


def fake_kernel(upstream: str, revision: str = "1") -> Kernel:
    return Kernel(
        series=".".join(upstream.split(".")[:2]),
        upstream=upstream,
        package=f"{upstream}-{revision}",
        release=f"{upstream}+fake{revision}",
        source="fake",
        locked=False,
        verified_by="nobody",
    )


@dataclass
class Script:
    """What fake guests of one kernel do: by reproducer, a word that `lab.errata.reproduce` would
    say, or "dies", "hangs", "panics" (the guest is lost), "leaves" (ends with status 0), "mistakes"
    (has found something of another one), "swallows" (does not say what it found)."""

    does: dict[str, str] = field(default_factory=dict)
    boots: int = 0
    asked: list[str] = field(default_factory=list)
    no_guest: Exception | None = None
    log: list[Record] = field(default_factory=list)
    heard: int = 0
    deaths: Sequence[Death] = ()
    lie: dict[str, str] | None = field(default_factory=dict)
    """What its process says otherwise of itself than is so; None if it does not say who it is."""
    probe_says: Sequence[str] = ()
    """What the kernel says before the first reproducer's mark."""
    set_up: list[tuple[str, ...]] = field(default_factory=list)
    """The set-up commands that ran."""
    set_up_status: int = 0
    prepared: threading.Event = field(default_factory=threading.Event)
    unprepared: LabError | None = None
    boots_after: Script | None = None
    """Whose kernel has to be prepared before a guest of this one comes up."""

    def say(self, text: str, *, of_kernel: bool = True) -> None:
        """Have it in the kernel's log."""
        priority = 4 if of_kernel else 8 + 5
        self.log.append(Record(len(self.log), priority, 9_000_000, False, text))


class FakeProcess:
    """Says what its script has; cuts its lines in two, as a pipe may."""

    def __init__(self, guest: FakeGuest, names: Sequence[str]) -> None:
        self._events: list[Event | Exception] = []
        self._killed = False
        self._out = Numberer()
        if guest.script.lie is not None:
            self._put(Said.HELLO, **{**guest.proof, **guest.script.lie})
        for line in guest.script.probe_says:
            guest.script.say(line)
        for name in names:
            self._put(Said.BEGUN, id=name)
            guest.script.asked.append(name)
            guest.script.say(mark_of(name), of_kernel=False)
            word = guest.script.does.get(name, "absent")
            if word == "panics":
                guest.script.say("Kernel panic - not syncing: fake")
                self._events.append(GuestLost("the guest's kernel panicked"))
                return
            if word == "hangs":
                return
            if word in ("dies", "leaves"):
                self._events.append(Output(Stream.STDERR, b"Segmentation fault\n"))
                self._events.append(Exited(-11 if word == "dies" else 0))
                return
            if word == "swallows":
                continue
            if word == "splats":
                guest.script.say(COMPLAINT)
                word = "absent"
            word, _, why = word.partition(" ")
            found = name
            if word == "mistakes":
                found, word = NODES[2], "absent"
            self._put(
                Said.FOUND, id=found, seen=word, evidence="seen" if word == "present" else why
            )
        self._put(Said.DONE, found=len(names))
        self._events.append(Exited(0))

    def _put(self, kind: Said, **fields: object) -> None:
        # What a reproducer prints is not taken for what it found.
        noise = json.dumps({"type": "found", "id": NODES[0], "seen": "failed"}).encode()
        message = self._out.message(kind, **fields)
        self._events += [Output(Stream.STDOUT, b"not JSON\n" + noise + b"\n"), Control(message)]

    def receive(self, timeout_s: float) -> Event:
        if not self._events:
            if self._killed:
                return Exited(-9)
            time.sleep(min(timeout_s, 0.05))
            raise TimeoutError("nothing was said")
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def kill(self, signal: int = 9) -> None:  # noqa: ARG002
        self._killed = True


class FakeGuest:
    """A guest that runs nothing."""

    slowdown = 1.0

    def __init__(self, kernel: Kernel, script: Script) -> None:
        self.kernel, self.script, self.uname = kernel, script, kernel.release
        self.pushed = b""
        self.deaths = script.deaths
        self.nonce = "1234"
        self.proof = {"nonce": "1234", "release": kernel.release, **HASHES}

    def push_tree(self, tar: bytes, directory: str) -> None:  # noqa: ARG002
        self.pushed = tar

    def run(self, argv: Sequence[str], *, env: dict[str, str], **_: Any) -> Completed:
        assert self.pushed == b"tar", "nothing was pushed before it was run"
        assert env["PYTHONPATH"] == "here"
        self.script.set_up.append(tuple(argv))
        return Completed(self.script.set_up_status, b"", b"no rule")

    def console_log(self) -> bytes:
        return b"".join(record.line.encode() + b"\r\n" for record in self.script.log)

    def read_kernel_log(self) -> Piece:
        begun, self.script.heard = self.script.heard, len(self.script.log)
        return Piece(self.script.log[begun:])

    def spawn(self, argv: Sequence[str], *, env: dict[str, str], **_: Any) -> FakeProcess:
        assert env["LAB_KMSG"] == "/dev/kmsg"
        assert argv[3:5] == ("-m", "lab.errata.reproduce")
        assert self.pushed == b"tar", "nothing was pushed before it was run"
        assert env["PYTHONPATH"] == "here"
        return FakeProcess(self, argv[5:])


class FakeLab:
    """Gives guests of one kernel."""

    def __init__(self, kernel: Kernel, script: Script) -> None:
        self.kernel, self.script = kernel, script

    def prepare(self, results: Path) -> None:
        assert results.is_dir()
        self.script.prepared.set()
        if self.script.unprepared is not None:
            raise self.script.unprepared

    @contextmanager
    def boot(self, results: Path) -> Iterator[Any]:
        assert results.is_dir()
        if self.script.boots_after is not None:
            assert self.script.boots_after.prepared.wait(10), "the next one was not prepared"
        self.script.boots += 1
        if self.script.no_guest is not None:
            raise self.script.no_guest
        yield FakeGuest(self.kernel, self.script)


def fake_erratum(letter: str, *, bad: tuple[str, ...] = (), good: tuple[str, ...] = ()) -> Erratum:
    number = "abc".index(letter) + 1
    return Erratum(
        id=f"IOX-ERR-00{number}",
        title=f"It is broken, {letter}",
        capability="INC",
        reproducer=NODES[number - 1],
        known_bad=bad,
        known_good=good,
        links=("https://example.org/1",),
        reported="",
    )


CATALOGUE = Catalogue((fake_erratum("a"), fake_erratum("b"), fake_erratum("c")))
