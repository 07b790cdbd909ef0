# SPDX-License-Identifier: MIT
"""One pytest process in a guest, from the host's side: believe nothing it could not have said.

Every way it can end before it is told to raises Gone; everything it says that cannot be true raises
RunOver, because nothing such a process says can count.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import GuestLost
from ..facts.probed import Probed
from ..remote.identity import Expected
from ..vm import Control, Event, Exited, Guest, Output
from .plan import Gone, Listener, Outcome, RunOver
from .reconcile import differences
from .wire import FROM_GUEST, BrokenWire, Checker, Numberer, Said, Told

TAIL_BYTES = 16_000
CONSOLE_LINES = 20
LOG_BYTES = 8 << 20
"""Of a guest's output so many bytes are kept, and as many of what was before: the newest, which
tell how it ended."""
ENVIRONMENT = {
    # Entry points of other plugins cost seconds under emulation, and the ids must be those of the
    # host, which names the plugins it needs.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    # What was pushed was compared; nothing is to be added to it.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
}


class Worker:
    """The guest's pytest process."""

    def __init__(
        self,
        guest: Guest,
        *,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        log: Path,
        listener: Listener,
    ) -> None:
        self.alive = True
        self._guest = guest
        self._log = log
        self._listener = listener
        self._finished = self._failures = 0
        self._output = bytearray()
        self._out, self._in = Numberer(), Checker(FROM_GUEST)
        argv = (sys.executable, "-m", "pytest", *arguments)
        self._process = guest.spawn(argv, env={**ENVIRONMENT, **environment}, cwd=cwd)

    # -- from its first word to its last -----------------------------------------------------

    def greet(self, expected: Expected, probe: Probed, programs: Mapping[str, Any]) -> None:
        """Let it prove who it is, and tell it what it may know. Raises Gone, RunOver."""
        hello = self._expect(Said.HELLO, 30 + 10 * self._guest.slowdown)
        for name, wanted in expected.to_json().items():
            if name != "kernel" and hello[name] != wanted:
                raise RunOver(
                    f"the guest proves the wrong {name}: {hello[name]!r}, expected {wanted!r}"
                )
        told = {**programs, "slowdown": self._guest.slowdown} if programs else {}
        self._tell(
            Told.WELCOME, expected=expected.to_json(), probe=probe.to_object(), programs=told
        )

    def compare(self, selected: Sequence[str], *, subset: bool) -> None:
        """Compare what it collected with what the host did. Raises Gone, RunOver."""
        collected = self._expect(Said.COLLECTED, 60 + 15 * self._guest.slowdown)
        if errors := collected["errors"]:
            raise RunOver(
                f"{len(errors)} collection errors in the guest", tail="\n".join(map(str, errors))
            )
        if odd := [name for name in collected["ids"] if not isinstance(name, str)]:
            self.lied(f"it collected {odd[0]!r}, which is no id")
        if different := differences(selected, collected["ids"], subset=subset):
            raise RunOver(f"host and guest collected different tests: {different}")

    def run(self, name: str, following: str | None, outcome: Outcome, seconds: float) -> None:
        """Run one test and fill in its outcome. Raises Gone, RunOver."""
        self._output.clear()
        trouble = False
        self._tell(Told.RUN, id=name, next=following)
        deadline = time.monotonic() + seconds
        while True:
            event = self._receive(deadline)
            if event is None:
                raise self._hung(seconds)
            if isinstance(event, Exited):
                raise Gone(died(event.status), killed=event.status == -signal.SIGKILL)
            kind, message = self._check(event)
            if kind == Said.TROUBLE:
                trouble = True
                outcome.sections.append(("trouble of pytest in the guest", message["text"]))
            elif kind == Said.DONE:
                # pytest.exit() in a test, or an error of its own: it ends in good order, but the
                # test that was running has no verdict.
                self._end(deadline)
                raise Gone("the guest's pytest ended before the test did")
            elif trouble:
                # pytest says so when it has broken, and runs no test any more.
                self.lied(f"it said {kind} of {name!r} after its own trouble")
            elif self._account(kind, message, name, outcome):
                self._finished += 1
                return

    def _account(self, kind: str, message: Mapping[str, Any], name: str, outcome: Outcome) -> bool:
        """Enter one message about a test; whether it was the last. Raises RunOver for a lie."""
        if message.get("id") != name or kind not in (Said.START, Said.REPORT, Said.FINISH):
            self.lied(f"it said {kind} of {message.get('id')!r} while {name!r} was to run")
        if kind == Said.START:
            if outcome.started:
                self.lied(f"it started {name!r} twice")
            outcome.started = True
        elif not outcome.started:
            self.lied(f"it said {kind} of {name!r} before it started it")
        elif kind == Said.REPORT:
            outcome.reports.append(message["data"])
            self._failures += message["data"].get("outcome") == "failed"
        elif (came := len(outcome.reports)) != message["reports"]:
            self.lied(f"it counts {message['reports']} reports of {name!r}, {came} came")
        return kind == Said.FINISH

    def stop(self) -> list[str]:
        """Let it end; sentences about what was wrong with its end. Raises Gone, RunOver."""
        self._output.clear()
        self._tell(Told.STOP)
        problems: list[str] = []
        said: int | None = None
        deadline = time.monotonic() + 20 + 5 * self._guest.slowdown
        while not isinstance(event := self._receive(deadline), Exited):
            if event is None:
                return [*problems, "pytest in the guest did not end when told to"]
            kind, message = self._check(event)
            if kind == Said.TROUBLE:
                problems.append(f"pytest in the guest: {message['text']}")
            elif kind != Said.DONE or said is not None:
                self.lied(f"it said {kind} after its last test")
            elif message["finished"] != self._finished:
                self.lied(f"it counts {message['finished']} tests, {self._finished} came")
            else:
                said = message["status"]
        if said is None:
            problems.append(f"pytest in the guest ended early: {died(event.status)}")
        elif said != event.status:
            problems.append(
                f"pytest in the guest failed after its last test: it said {said}, then "
                f"{died(event.status)}"
            )
        elif said != (due := int(self._failures > 0)):
            problems.append(
                f"pytest in the guest ended with status {said}, and its tests with {due}"
            )
        return problems

    # -- what can go wrong -------------------------------------------------------------------

    def lied(self, how: str) -> NoReturn:
        """Raise RunOver about something that cannot be true."""
        raise RunOver(f"the guest's pytest cannot be believed: {how}", tail=self.tail())

    def tail(self) -> str:
        """The last lines of the guest's console and of what pytest printed there."""
        return "\n".join(text for text in (console_tail(self._guest), self.output_tail()) if text)

    def output_tail(self) -> str:
        """The last of what pytest printed since the present test began."""
        return bytes(self._output[-TAIL_BYTES:]).decode("utf-8", "backslashreplace").strip()

    def _hung(self, seconds: float) -> Gone:
        """Ask for every thread's stack (faulthandler answers SIGABRT), then end the process."""
        why = f"no verdict within {seconds:.0f} s; the process was killed"
        patience = 5.0 + 2.0 * self._guest.slowdown
        for number in (signal.SIGABRT, signal.SIGKILL):
            try:
                self._process.kill(number)
                self._end(time.monotonic() + patience, kill=False)
            except GuestLost as lost:
                return Gone.with_guest(lost)
            except Gone as gone:
                return gone
            if not self.alive:
                return Gone(why)
        return Gone(f"{why}, and did not die", guest_too=True, tail=console_tail(self._guest))

    def _end(self, deadline: float, *, kill: bool = True) -> None:
        """Wait for the process's end, whatever it still says; if it does not come, kill it."""
        while (event := self._receive(deadline)) is not None:
            if isinstance(event, Exited):
                return
        if kill:
            try:
                self._process.kill(signal.SIGKILL)
            except GuestLost as lost:
                raise Gone.with_guest(lost) from lost
            self.alive = False

    # -- talking -----------------------------------------------------------------------------

    def _tell(self, kind: Told, **fields: Any) -> None:
        try:
            self._process.send(self._out.message(kind, **fields))
        except GuestLost as lost:
            raise Gone.with_guest(lost) from lost

    def _receive(self, deadline: float) -> Control | Exited | None:
        """The next thing said; None when the deadline passed. Output is kept aside."""
        while (left := deadline - time.monotonic()) > 0:
            try:
                event: Event = self._process.receive(min(left, 1.0))
            except TimeoutError:
                self._listener.tick()
                continue
            except GuestLost as lost:
                raise Gone.with_guest(lost) from lost
            if isinstance(event, Output):
                self._keep(event.data)
                continue
            if isinstance(event, Exited):
                self.alive = False
            return event
        return None

    def _keep(self, data: bytes) -> None:
        self._output += data
        # A test may print without end: only the tail is of use, and only that is kept in memory.
        if len(self._output) > 4 * TAIL_BYTES:
            del self._output[:-TAIL_BYTES]
        with self._log.open("ab") as file:
            file.write(data)
            full = file.tell() > LOG_BYTES
        if full:
            self._log.replace(self._log.with_name(f"{self._log.name}.1"))

    def _check(self, event: Control) -> tuple[str, Mapping[str, Any]]:
        try:
            return self._in.check(event.obj), event.obj
        except BrokenWire as broken:
            self.lied(str(broken))

    def _expect(self, wanted: Said, seconds: float) -> Mapping[str, Any]:
        event = self._receive(time.monotonic() + seconds)
        if event is None:
            raise RunOver(
                f"pytest in the guest said no {wanted} within {seconds:.0f} s", tail=self.tail()
            )
        if isinstance(event, Exited):
            killed = event.status == -signal.SIGKILL
            raise Gone(died(event.status), tail=console_tail(self._guest), killed=killed)
        kind, message = self._check(event)
        if kind == Said.TROUBLE:
            raise Gone(str(message["text"]))
        if kind == Said.DONE:
            # It gave up in good order (a usage error, say); its last output names the cause.
            self._end(time.monotonic() + seconds)
            raise Gone(f"it ended before it said {wanted}", tail=console_tail(self._guest))
        if kind != wanted:
            self.lied(f"it said {kind} where {wanted} was due")
        return message


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
