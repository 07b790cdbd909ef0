# SPDX-License-Identifier: MIT
"""One Python process in a guest, from the host's side: believe nothing it could not have said.

Every way it can end before it is told to raises Gone; everything it says that cannot be true raises
RunOver, because nothing such a process says can count.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from ..errors import GuestLost
from ..vm import Control, Event, Exited, Guest, Output
from .identity import Expected
from .log import Log
from .losses import Gone, RunOver, Silent
from .wire import DONE, TROUBLE, BrokenWire, Checker, Kinds, Numberer

TREE = "/tmp/lab-tree"
"""Where the tree lies in a guest that is given one."""
TAIL_BYTES = 16_000
CONSOLE_LINES = 20
LOG_BYTES = 8 << 20
"""Of a process's output so many bytes are kept, and as many of what was before: the newest, which
tell how it ended."""
ENVIRONMENT: Mapping[str, str] = {
    # What was pushed was compared; nothing is to be added to it.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
}
"""Of every Python in a guest."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the process, checked."""

    kind: str
    fields: Mapping[str, Any]


class PythonProcess:
    """A Python in a guest that speaks in numbered messages."""

    def __init__(
        self,
        guest: Guest,
        arguments: Sequence[str],
        *,
        name: str,
        kinds: Kinds,
        log: Path,
        cwd: str = TREE,
        environment: Mapping[str, str] | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Start it with these arguments for Python.

        `name` is what sentences call it, `kinds` are the messages it may say. What it prints goes
        to the file `log`. `tick` is called about once a second while it is silent.

        Raises GuestLost.
        """
        self.alive = True
        self._guest, self._name, self.log, self._tick = guest, name, Log(log), tick
        self._output = bytearray()
        self._out, self._in = Numberer(), Checker(kinds)
        self._process = guest.spawn(
            (sys.executable, *arguments), env={**ENVIRONMENT, **(environment or {})}, cwd=cwd
        )

    # -- talking -----------------------------------------------------------------------------

    def tell(self, kind: StrEnum, **fields: Any) -> None:
        """Send it a message. Raises Gone."""
        try:
            self._process.send(self._out.message(kind, **fields))
        except GuestLost as lost:
            raise Gone.with_guest(lost) from lost

    def receive(self, deadline: float) -> Said | Exited | None:
        """The next thing it says, or its end; None when the deadline (of time.monotonic) passed.

        Raises Gone when the guest is gone, RunOver for what cannot be true.
        """
        while (left := deadline - time.monotonic()) > 0:
            try:
                event: Event = self._process.receive(min(left, 1.0))
            except TimeoutError:
                self._tick()
                continue
            except GuestLost as lost:
                raise Gone.with_guest(lost) from lost
            match event:
                case Output(data=data):
                    self._keep(data)
                case Exited():
                    self.alive = False
                    return event
                case Control(obj):
                    return self._checked(obj)
        return None

    def expect(self, wanted: StrEnum, seconds: float) -> Mapping[str, Any]:
        """The message that is due now. Raises Gone, RunOver."""
        said = self.receive(time.monotonic() + seconds)
        if said is None:
            raise Silent(
                f"{self._name} in the guest said no {wanted} within {seconds:.0f} s",
                tail=self.tail(),
            )
        if isinstance(said, Exited):
            raise self.ended(said, tail=console_tail(self._guest))
        if said.kind == TROUBLE:
            raise Gone(str(said.fields["text"]))
        if said.kind == DONE:
            # It gave up in good order (a usage error, say); its last output names the cause.
            self.end(time.monotonic() + seconds)
            raise Gone(f"it ended before it said {wanted}", tail=console_tail(self._guest))
        if said.kind != wanted:
            self.lied(f"it said {said.kind} where {wanted} was due")
        return said.fields

    def prove(self, hello: StrEnum, expected: Expected, seconds: float) -> Mapping[str, Any]:
        """Have its first message, `hello`, prove that it is the process of this run; what else that
        says. Raises Gone, RunOver."""
        fields = self.expect(hello, seconds)
        if wrong := expected.contradicted(fields):
            raise RunOver(wrong)
        return fields

    def _checked(self, obj: Mapping[str, Any]) -> Said:
        try:
            return Said(self._in.check(obj), obj)
        except BrokenWire as broken:
            self.lied(str(broken))

    # -- what can go wrong -------------------------------------------------------------------

    def lied(self, how: str) -> NoReturn:
        """Raise RunOver about something that cannot be true."""
        raise RunOver(f"the guest's {self._name} cannot be believed: {how}", tail=self.tail())

    def ended(self, exited: Exited, *, tail: str = "") -> Gone:
        """Its end, where none was due."""
        return Gone(died(exited.status), tail=tail, killed=exited.status == -signal.SIGKILL)

    def hung(self, why: str) -> Gone:
        """End it because of `why`: ask for every thread's stack first (faulthandler answers
        SIGABRT), then kill it."""
        why = f"{why}; the process was killed"
        patience = 5.0 + 2.0 * self._guest.slowdown
        for number in (signal.SIGABRT, signal.SIGKILL):
            try:
                self._process.kill(number)
                self.end(time.monotonic() + patience, kill=False)
            except GuestLost as lost:
                return Gone.with_guest(lost)
            except Gone as gone:
                return gone
            if not self.alive:
                return Gone(why)
        return Gone(f"{why}, and did not die", guest_too=True, tail=console_tail(self._guest))

    def end(self, deadline: float, *, kill: bool = True) -> None:
        """Wait for its end, whatever it still says; if it does not come, kill it. Raises Gone."""
        while (event := self.receive(deadline)) is not None:
            if isinstance(event, Exited):
                return
        if kill:
            try:
                self._process.kill(signal.SIGKILL)
            except GuestLost as lost:
                raise Gone.with_guest(lost) from lost
            self.alive = False

    # -- what it printed ---------------------------------------------------------------------

    def forget_output(self) -> None:
        """What it printed so far is of no more use."""
        self._output.clear()

    def output_tail(self) -> str:
        """The last of what it printed since that was forgotten."""
        return bytes(self._output[-TAIL_BYTES:]).decode("utf-8", "backslashreplace").strip()

    def tail(self) -> str:
        """The last lines of the guest's console and of what the process printed."""
        return "\n".join(text for text in (console_tail(self._guest), self.output_tail()) if text)

    def _keep(self, data: bytes) -> None:
        self._output += data
        # It may print without end: only the tail is of use, and only that is kept in memory.
        if len(self._output) > 4 * TAIL_BYTES:
            del self._output[:-TAIL_BYTES]
        kept = self.log.append(data)
        if kept is not None and kept.end > LOG_BYTES:
            path = self.log.path
            path.replace(path.with_name(f"{path.name}.1"))


def check_release(guest: Guest) -> None:
    """Raise RunOver if the guest is not the kernel that was booted."""
    if guest.uname != guest.kernel.release:
        raise RunOver(
            f"the guest calls itself {guest.uname!r}, {guest.kernel.release!r} was booted"
        )


def console_tail(guest: Guest) -> str:
    """The last lines of a guest's console."""
    lines = guest.console_log().decode("utf-8", "backslashreplace").splitlines()
    return "\n".join(lines[-CONSOLE_LINES:])


def died(status: int) -> str:
    """How a process ended, as a sentence."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"the test process was killed by {name}"
    return f"the test process ended with status {status} of its own accord"
