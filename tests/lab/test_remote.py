# SPDX-License-Identifier: MIT
"""A Python process in a guest: what it says is checked, each way to lose it has a sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import GuestLost
from lab.remote.losses import Gone, RunOver
from lab.remote.process import PythonProcess, check_release
from lab.remote.wire import DONE, FORKED_STATUS, TROUBLE, Control, Kinds
from lab.vm import Control as Told
from lab.vm import Event, Exited, Output, Stream

pytestmark = pytest.mark.lab


class Say(StrEnum):
    """What the process of these tests may say."""

    READY = "ready"
    TROUBLE = TROUBLE
    DONE = DONE


KINDS: Kinds = {Say.READY: {"count": int}, Say.TROUBLE: {"text": str}, Say.DONE: {}}


class Scripted:
    """A process that says what it is given, then nothing; `dies_of` ends it."""

    def __init__(self, events: Sequence[Event | Exception], dies_of: frozenset[int]) -> None:
        self._events = [*events]
        self._dies_of = dies_of
        self.signals: list[int] = []

    def receive(self, timeout_s: float) -> Event:
        if not self._events:
            if self._dies_of.intersection(self.signals):
                return Exited(-self.signals[-1])
            raise TimeoutError(f"nothing within {timeout_s} s")
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.signals.append(number)


def process_of(
    tmp_path: Path, *events: Event | Exception, dies_of: Sequence[int] = ()
) -> tuple[PythonProcess, Scripted]:
    """A process in a guest that says this."""
    scripted = Scripted(events, frozenset(dies_of))
    guest: Any = SimpleNamespace(
        slowdown=-2.4,  # so that patience is 0.2 s
        console_log=lambda: b"the console's last line\n",
        spawn=lambda *_, **__: scripted,
    )
    process = PythonProcess(
        guest, ["-m", "it"], name="process", kinds=KINDS, log=tmp_path / "output.log"
    )
    return process, scripted


def message(n: int, kind: str, **fields: Any) -> Told:
    return Told({"n": n, "type": kind, **fields})


def test_what_is_due_is_told_apart_from_what_is_printed(tmp_path: Path) -> None:
    """Only the channel counts; what is printed goes to the log."""
    printed = Output(Stream.STDOUT, b'{"n": 0, "type": "ready", "count": 9}\n')
    process, _ = process_of(tmp_path, printed, message(0, "ready", count=1))

    assert 1 == process.expect(Say.READY, 1.0)["count"]
    assert printed.data == (tmp_path / "output.log").read_bytes()
    assert process.output_tail() == printed.data.decode().strip()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (message(1, "ready", count=1), "message number 1 where 0 was due"),
        (message(0, "ready", count=True), "a 'ready' message whose 'count' is True"),
        (message(0, "rumour"), "a message of unknown type 'rumour'"),
    ],
)
def test_what_cannot_be_true_ends_the_run(tmp_path: Path, event: Event, words: str) -> None:
    """A wrong number, field or type: nothing this process says can count."""
    process, _ = process_of(tmp_path, event)
    with pytest.raises(RunOver, match=f"the guest's process cannot be believed: {words}") as over:
        process.expect(Say.READY, 1.0)
    assert "the console's last line" in over.value.tail


def test_silence_ends_the_run(tmp_path: Path) -> None:
    """What was due and did not come is named, with how long it was waited for."""
    process, _ = process_of(tmp_path)
    with pytest.raises(RunOver, match="process in the guest said no ready within 0 s"):
        process.expect(Say.READY, 0.2)


@pytest.mark.parametrize(
    ("events", "words", "killed", "guest_too"),
    [
        ([message(0, TROUBLE, text="it broke")], "it broke", False, False),
        ([message(0, DONE), Exited(2)], "it ended before it said ready", False, False),
        ([Exited(3)], "ended with status 3 of its own accord", False, False),
        ([Exited(-9)], "was killed by SIGKILL", True, False),
        ([GuestLost("the guest's kernel panicked")], "panicked", False, True),
    ],
)
def test_each_end_before_its_time_has_its_sentence(
    tmp_path: Path, events: list[Event | Exception], words: str, killed: bool, guest_too: bool
) -> None:
    """Trouble, an end in good order, an exit, a signal, the guest's own end."""
    process, _ = process_of(tmp_path, *events)
    with pytest.raises(Gone, match=words) as gone:
        process.expect(Say.READY, 1.0)
    assert (killed, guest_too) == (gone.value.killed, gone.value.guest_too)


@pytest.mark.parametrize(
    ("dies_of", "sent", "guest_too"),
    [
        ([signal.SIGABRT], [signal.SIGABRT], False),
        ([signal.SIGKILL], [signal.SIGABRT, signal.SIGKILL], False),
        ([], [signal.SIGABRT, signal.SIGKILL], True),
    ],
)
def test_process_that_hangs_is_asked_for_its_stacks_and_ended(
    tmp_path: Path, dies_of: list[int], sent: list[int], guest_too: bool
) -> None:
    """SIGABRT shows the stacks, SIGKILL ends it; what survives that takes the guest with it."""
    process, scripted = process_of(tmp_path, dies_of=dies_of)

    gone = process.hung("it said nothing")

    assert sent == scripted.signals
    assert guest_too is gone.guest_too
    assert str(gone).startswith("it said nothing; the process was killed")


def test_guest_of_another_kernel_is_no_guest() -> None:
    """A guest whose uname is not the release that was booted proves nothing of that release."""
    kernel = SimpleNamespace(release="6.12.1")
    guest: Any = SimpleNamespace(uname="6.6.6", kernel=kernel)
    with pytest.raises(RunOver, match=re.escape("calls itself '6.6.6', '6.12.1' was booted")):
        check_release(guest)
    guest.uname = "6.12.1"
    check_release(guest)


def test_forked_child_does_not_speak_for_its_parent() -> None:
    """A child that comes back into its parent's code ends instead of saying a second message."""
    ours, theirs = socket.socketpair()
    control = Control(theirs.detach(), {})
    pid = os.fork()
    if not pid:
        try:
            control.say(Say.READY, count=2)
        finally:
            os._exit(1)
    assert FORKED_STATUS == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    control.say(Say.READY, count=1)
    with ours, ours.makefile("rb") as lines:
        assert {"n": 0, "type": "ready", "count": 1} == json.loads(lines.readline())
    with pytest.raises(EOFError):
        control.listen()
    control.close()


def test_a_guests_pytest_imports_nothing_that_only_the_host_needs() -> None:
    """Each import costs a guest eleven times what it costs here."""
    code = (
        "import pytest, sys; before = set(sys.modules)\n"
        "import lab.suite.plugin, lab.suite.guest_side\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"lab"} == set(done.stdout.split())
