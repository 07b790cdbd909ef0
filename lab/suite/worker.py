# SPDX-License-Identifier: MIT
"""The guest's pytest, from its first word to its last, from the host's side.

Every way it can end before it is told to raises Gone; everything it says that cannot be true raises
RunOver, because nothing such a process says can count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..facts.probed import Probed
from ..remote.identity import Expected
from ..remote.losses import Gone, RunOver
from ..remote.process import PythonProcess, died
from ..vm import Exited, Guest
from .hang import CAPTURED, LAST_PRINTED, Hang
from .plan import Listener, Outcome
from .reconcile import differences
from .wire import FROM_GUEST, Said, Told

ENVIRONMENT = {
    # Entry points of other plugins cost seconds under emulation, and the ids must be those of the
    # host, which names the plugins it needs.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


PING_S, ASK_S = 3.0, 10.0
"""So long, in seconds, a guest may take to answer at all, and to this."""


class Worker:
    """The guest's pytest process."""

    def __init__(
        self,
        guest: Guest,
        *,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        listener: Listener,
        hang: Callable[[int, str, str], Hang],
    ) -> None:
        """`hang` gathers what a process is at, given by its number in the guest, the test that
        it runs and what that failed to do."""
        self._guest, self._slowdown, self._hang = guest, guest.slowdown, hang
        self._pid = 0
        self._finished = self._failures = 0
        self.strangers: Sequence[str] = ()
        """What it might load of the tree that was not sent there."""
        self.left: Sequence[str] = ()
        """What it says that its tests left for the repository, once it has ended."""
        self.process = PythonProcess(
            guest,
            ("-m", "pytest", *arguments),
            name="pytest",
            kinds=FROM_GUEST,
            log=log,
            environment={**ENVIRONMENT, **environment},
            tick=listener.tick,
        )

    # -- from its first word to its last -----------------------------------------------------

    def greet(self, expected: Expected, probe: Probed | None, programs: Mapping[str, Any]) -> None:
        """Let it prove who it is, and tell it what it may know. Raises Gone, RunOver."""
        hello = self.process.prove(Said.HELLO, expected, 30 + 10 * self._slowdown)
        self._pid = hello["pid"]
        self.strangers = [str(name) for name in hello["strangers"]]
        told = {**programs, "slowdown": self._slowdown} if programs else {}
        known = {} if probe is None else probe.to_object()
        self.process.tell(Told.WELCOME, expected=expected.to_json(), probe=known, programs=told)

    def compare(self, selected: Sequence[str], *, subset: bool) -> None:
        """Compare what it collected with what the host did. Raises Gone, RunOver."""
        collected = self.process.expect(Said.COLLECTED, 60 + 15 * self._slowdown)
        if errors := collected["errors"]:
            raise RunOver(
                f"{len(errors)} collection errors in the guest", tail="\n".join(map(str, errors))
            )
        if odd := [name for name in collected["ids"] if not isinstance(name, str)]:
            self.process.lied(f"it collected {odd[0]!r}, which is no id")
        if different := differences(selected, collected["ids"], subset=subset):
            raise RunOver(f"host and guest collected different tests: {different}")

    def run(self, name: str, following: str | None, outcome: Outcome, seconds: float) -> None:
        """Run one test and fill in its outcome. Raises Gone, RunOver."""
        self.process.forget_output()
        trouble = False
        self.process.tell(Told.RUN, id=name, next=following)
        deadline = time.monotonic() + seconds
        while True:
            said = self.process.receive(deadline)
            if said is None:
                why = f"no verdict within {seconds:.0f} s"
                hang = self._hang(self._pid, name, why)
                gone = self.process.hung(why)
                gone, outcome.hang = hang.told(gone, self.process.output_tail())
                outcome.memory = hang.memory
                if hang.captured:
                    outcome.sections.append((LAST_PRINTED, hang.captured))
                raise gone
            if isinstance(said, Exited):
                raise self.process.ended(said)
            kind, message = said.kind, said.fields
            if kind == Said.TROUBLE:
                trouble = True
                outcome.sections.append(("trouble of pytest in the guest", message["text"]))
            elif kind == Said.DONE:
                # pytest.exit() in a test, or an error of its own: it ends in good order, but the
                # test that was running has no verdict.
                self.process.end(deadline)
                raise Gone("the guest's pytest ended before the test did")
            elif trouble:
                # pytest says so when it has broken, and runs no test any more.
                self.process.lied(f"it said {kind} of {name!r} after its own trouble")
            elif self._account(kind, message, name, outcome):
                self._finished += 1
                return

    def printed(self) -> str:
        """What the test that runs has printed, as far as pytest has not told it; or why that is not
        known. No interrupt keeps the guest from telling."""
        self._guest.ignore_interrupt()
        try:
            self._guest.ping(PING_S)
            done = self._guest.run(
                ["/bin/sh", "-c", CAPTURED, "sh", str(self._pid)], timeout_s=ASK_S
            )
        except (LabError, TimeoutError) as error:
            return f"{self.process.output_tail()}\n(its captured output could not be had: {error})"
        return self.process.output_tail() + done.stdout.decode("utf-8", "backslashreplace")

    def _account(self, kind: str, message: Mapping[str, Any], name: str, outcome: Outcome) -> bool:
        """Enter one message about a test; whether it was the last. Raises RunOver for a lie."""
        if message.get("id") != name or kind not in (Said.START, Said.REPORT, Said.FINISH):
            self.process.lied(f"it said {kind} of {message.get('id')!r} while {name!r} was to run")
        if kind == Said.START:
            if outcome.started:
                self.process.lied(f"it started {name!r} twice")
            outcome.started = True
        elif not outcome.started:
            self.process.lied(f"it said {kind} of {name!r} before it started it")
        elif kind == Said.REPORT:
            outcome.reports.append(message["data"])
            self._failures += message["data"].get("outcome") == "failed"
        elif (came := len(outcome.reports)) != message["reports"]:
            self.process.lied(f"it counts {message['reports']} reports of {name!r}, {came} came")
        return kind == Said.FINISH

    def stop(self) -> list[str]:
        """Let it end; sentences about what was wrong with its end. Raises Gone, RunOver."""
        self.process.forget_output()
        self.process.tell(Told.STOP)
        problems: list[str] = []
        said: int | None = None
        deadline = time.monotonic() + 20 + 5 * self._slowdown
        while not isinstance(event := self.process.receive(deadline), Exited):
            if event is None:
                return [*problems, "pytest in the guest did not end when told to"]
            kind, message = event.kind, event.fields
            if kind == Said.TROUBLE:
                problems.append(f"pytest in the guest: {message['text']}")
            elif kind != Said.DONE or said is not None:
                self.process.lied(f"it said {kind} after its last test")
            elif message["finished"] != self._finished:
                self.process.lied(f"it counts {message['finished']} tests, {self._finished} came")
            else:
                said = message["status"]
                self.left = [str(name) for name in message["left"]]
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
