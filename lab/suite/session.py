# SPDX-License-Identifier: MIT
"""One run's guests: boot, push, start pytest, tell it what to run, and survive what tests do.

What ends a process costs the test that was running its verdict and nobody else's: the next one gets
a fresh process, or a fresh guest if that is gone too.  What makes the guest unbelievable (a wrong
identity, an id nobody sent, a broken frame) ends the run: nothing such a guest says can count.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from lab.errors import GuestLost, LabError
from lab.vm import Completed, Control, Event, Exited, Guest, Output, Process

from . import dmesg
from .identity import Expected
from .probed import Probed
from .reconcile import differences
from .wire import FROM_GUEST, BrokenWire, Checker, Numberer, Said, Told

TREE = "/tmp/ioxide-under-test"
TAIL_BYTES = 16_000
LOSSES_IN_A_ROW = 5
"""So many lost tests without one verdict between them, and the run is given up."""


class Lab(Protocol):
    """Gives guests of one kernel; the second and later ones when a test took the first down."""

    def boot(self, results: Path) -> AbstractContextManager[Guest]:
        """A fresh guest whose files go to `results`. Raises LabError."""


class Listener(Protocol):
    """Who wants to know what is going on, while it goes on."""

    def phase(self, text: str) -> None:
        """The run enters a phase that is not a test."""

    def tick(self) -> None:
        """Time passes and the guest is silent; called every few seconds."""


class RunOver(LabError):
    """Nothing more can be proved in this run; the message is the cause, with the log's tail."""

    def __init__(self, message: str, *, tail: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tail = tail


@dataclass(frozen=True, slots=True)
class Plan:
    """What the host decided before the first guest boots."""

    selected: Sequence[str]
    subset: bool
    """The guest may collect more than was selected (--lf and its like look in a host's cache)."""
    arguments: Sequence[str]
    """pytest's arguments in the guest."""
    tar: bytes
    tree_sha256: str
    extension_sha256: str
    bytecode_sha256: str
    results: Path
    test_seconds: Callable[[str, float], float]
    """Time limit of a test, in host seconds, given its id and the guest's slowdown."""


@dataclass(slots=True)
class Outcome:
    """What came home about one test."""

    reports: list[Mapping[str, Any]] = field(default_factory=list)
    lost: str = ""
    """Why there is no verdict, as a sentence; empty if there is one."""
    splat: dmesg.Splat | None = None
    sections: list[tuple[str, str]] = field(default_factory=list)


class _Gone(Exception):
    """The guest's pytest ended; `guest_too` if the guest did."""

    def __init__(self, why: str, *, guest_too: bool = False, tail: str = "") -> None:
        super().__init__(why)
        self.guest_too = guest_too
        self.tail = tail


class Session:
    """The guests and processes of one run, made when the first test needs them."""

    def __init__(self, lab: Lab, plan: Plan, listener: Listener) -> None:
        self.problems: list[str] = []
        """What keeps the run from having proved anything, as sentences."""
        self.faults: list[str] = []
        """What disproves without belonging to one test."""
        self.notes: list[str] = []
        self.tail = ""
        """The guest's last output, when it belongs to one of the problems."""
        self.probe: Probed | None = None
        self.expected: Expected | None = None
        self.guest: Guest | None = None
        """The present guest, None before the first and between two."""
        self.last_guest: Guest | None = None
        self.boots = 0
        self._lab = lab
        self._plan = plan
        self._listener = listener
        self._stack = ExitStack()
        self._process: Process | None = None
        self._finished_in_process = 0
        self._losses = 0
        self._log_offset = 0
        self._marks = 0
        self._output = bytearray()
        self._previous = ""
        self._out = Numberer()
        self._in = Checker(FROM_GUEST)

    # -- one test ----------------------------------------------------------------------------

    def run(self, name: str, following: str | None) -> Outcome:
        """Run one test in the guest. Raises RunOver when nothing more can be run at all."""
        for second_try in (False, True):
            self.prepare()
            outcome = Outcome()
            started: list[bool] = []
            try:
                self._run(name, following, outcome, started)
            except _Gone as gone:
                self._after_death(gone, outcome)
                if started or second_try:
                    outcome.lost = str(gone)
                    break
                # It ended before this test began: an earlier one, or a thread it left, did it.
                after = f"after {self._previous}" if self._previous else "before the first test"
                self.problems.append(f"{gone}, {after} and before {name} started")
            else:
                break
        self._previous = name
        self._losses = self._losses + 1 if outcome.lost else 0
        if self._losses >= LOSSES_IN_A_ROW:
            self.problems.append(f"given up: {self._losses} tests in a row were lost")
        return outcome

    @property
    def given_up(self) -> str:
        """Why no more tests are to be run; empty if they are."""
        return self.problems[-1] if self._losses >= LOSSES_IN_A_ROW else ""

    def _run(self, name: str, following: str | None, outcome: Outcome, started: list[bool]) -> None:
        guest, process = self._present()
        self._output.clear()
        limit = self._plan.test_seconds(name, guest.slowdown)
        try:
            self._marks += 1
            # The kernel takes lines of less than a kilobyte, and a node id may be longer.
            guest.mark_kernel_log(f"{dmesg.MARK} start {self._marks} {name[:300]}")
            process.send(self._out.message(Told.RUN, id=name, next=following))
        except GuestLost as lost:
            raise self._guest_gone(lost) from lost
        deadline = time.monotonic() + limit
        while True:
            event = self._receive(deadline)
            if event is None:
                raise self._hung(process, limit)
            if isinstance(event, Exited):
                self._process = None
                raise _Gone(_died(event.status))
            kind, message = self._check(event)
            if kind == Said.TROUBLE:
                outcome.sections.append(("trouble of pytest in the guest", message["text"]))
            elif kind == Said.DONE:
                # pytest.exit() in a test, or an error of its own: it ends in good order, but the
                # test that was running has no verdict.
                while isinstance(last := self._receive(deadline), Control):
                    pass
                if last is None:
                    process.kill(signal.SIGKILL)
                self._process = None
                raise _Gone("the guest's pytest ended before the test did")
            elif message.get("id") != name or kind not in (Said.START, Said.REPORT, Said.FINISH):
                self._lied(f"it said {kind} of {message.get('id')!r} while {name!r} was to run")
            elif kind == Said.START:
                if started:
                    self._lied(f"it started {name!r} twice")
                started.append(True)
            elif not started:
                self._lied(f"it said {kind} of {name!r} before it started it")
            elif kind == Said.REPORT:
                outcome.reports.append(message["data"])
            else:
                if message["reports"] != len(outcome.reports):
                    self._lied(
                        f"it counts {message['reports']} reports of {name!r}, "
                        f"{len(outcome.reports)} came"
                    )
                break
        self._finished_in_process += 1
        self._close_log_slice(name, outcome)

    def _close_log_slice(self, name: str, outcome: Outcome) -> None:
        guest, _ = self._present()
        mark = f"{dmesg.MARK} end {self._marks}."
        try:
            guest.mark_kernel_log(mark)
            log = guest.kernel_log()
        except GuestLost as lost:
            raise self._guest_gone(lost) from lost
        if mark.encode() not in log[self._log_offset :]:
            self.problems.append(f"the kernel log never showed the end mark of {name}")
        outcome.splat = dmesg.scan(log[self._log_offset :])
        self._log_offset = len(log)

    # -- what can go wrong -------------------------------------------------------------------

    def _after_death(self, gone: _Gone, outcome: Outcome) -> None:
        text = bytes(self._output[-TAIL_BYTES:]).decode("utf-8", "backslashreplace")
        if text.strip():
            outcome.sections.append(("last output of pytest in the guest", text))
        if gone.tail:
            outcome.sections.append(("last lines of the guest's console", gone.tail))
        if gone.guest_too:
            self._drop_guest()

    def _guest_gone(self, lost: GuestLost) -> _Gone:
        return _Gone(lost.reason, guest_too=True, tail=lost.console_tail)

    def _hung(self, process: Process, limit: float) -> _Gone:
        """Ask for every thread's stack (faulthandler answers SIGABRT), then end the process."""
        why = f"no verdict within {limit:.0f} s; the process was killed"
        patience = 5.0 + 2.0 * self._present()[0].slowdown
        for number in (signal.SIGABRT, signal.SIGKILL):
            try:
                process.kill(number)
                deadline = time.monotonic() + patience
                while (event := self._receive(deadline)) is not None:
                    if isinstance(event, Exited):
                        self._process = None
                        return _Gone(why)
            except _Gone as gone:
                return gone
            except GuestLost as lost:
                return self._guest_gone(lost)
        return _Gone(f"{why}, and did not die", guest_too=True, tail=self._console_tail())

    def _lied(self, how: str) -> NoReturn:
        raise RunOver(
            f"the guest's pytest cannot be believed: {how}",
            tail=f"{self._console_tail()}\n{self._output_tail()}".strip(),
        )

    def _console_tail(self) -> str:
        if self.guest is None:
            return ""
        lines = self.guest.kernel_log().decode("utf-8", "backslashreplace").splitlines()
        return "\n".join(lines[-20:])

    def _output_tail(self) -> str:
        return bytes(self._output[-TAIL_BYTES:]).decode("utf-8", "backslashreplace").strip()

    # -- listening ---------------------------------------------------------------------------

    def _receive(self, deadline: float) -> Control | Exited | None:
        """The next thing said; None when the deadline passed. Output is kept aside."""
        _, process = self._present()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                event: Event = process.receive(min(left, 1.0))
            except TimeoutError:
                self._listener.tick()
                continue
            except GuestLost as lost:
                raise self._guest_gone(lost) from lost
            if isinstance(event, Output):
                self._keep(event.data)
                continue
            return event

    def _keep(self, data: bytes) -> None:
        self._output += data
        # A test may print without end: only the tail is of use, and only that is kept in memory.
        if len(self._output) > 4 * TAIL_BYTES:
            del self._output[:-TAIL_BYTES]
        with (self._plan.results / "guest-output.log").open("ab") as file:
            file.write(data)

    def _check(self, event: Control) -> tuple[str, Mapping[str, Any]]:
        try:
            return self._in.check(event.obj), event.obj
        except BrokenWire as broken:
            self._lied(str(broken))

    def _present(self) -> tuple[Guest, Process]:
        if self.guest is None or self._process is None:
            raise RunOver("a guest was asked for something when there was none")
        return self.guest, self._process

    # -- coming up and going down ------------------------------------------------------------

    def prepare(self) -> None:
        """See to it that a guest is up and pytest waits in it. Raises RunOver."""
        try:
            if self.guest is None:
                self._boot()
            if self._process is None:
                self._start_pytest()
        except _Gone as gone:
            tail = "\n".join(part for part in (gone.tail, self._output_tail()) if part)
            raise RunOver(f"pytest did not start in the guest: {gone}", tail=tail) from gone
        except GuestLost as lost:
            raise RunOver(lost.reason, tail=lost.console_tail, hint=lost.hint) from lost
        except RunOver as over:
            over.tail = over.tail or f"{self._console_tail()}\n{self._output_tail()}".strip()
            raise

    def _boot(self) -> None:
        self.boots += 1
        again = f" again (guest {self.boots})" if self.boots > 1 else ""
        self._listener.phase(f"booting{again}")
        where = self._plan.results
        if self.boots > 1:
            where = where / f"guest-{self.boots}"
            where.mkdir()
        self.guest = self.last_guest = guest = self._stack.enter_context(self._lab.boot(where))
        self._listener.phase(
            f"{guest.uname} is up: agent after {guest.boot_seconds:.1f} s, "
            f"{guest.accel.kind} ({guest.accel.reason}), {guest.slowdown:.1f}x slower than here"
        )
        if guest.uname != guest.kernel.release:
            raise RunOver(
                f"the guest calls itself {guest.uname!r}, {guest.kernel.release!r} was booted"
            )
        guest.push_tree(self._plan.tar, TREE)
        if self.probe is None:
            self.probe = self._probe(guest)
        self.expected = Expected(
            kernel=guest.kernel.upstream,
            release=guest.kernel.release,
            nonce=guest.nonce,
            tree_sha256=self._plan.tree_sha256,
            extension_sha256=self._plan.extension_sha256,
            bytecode_sha256=self._plan.bytecode_sha256,
        )
        boot_log = guest.kernel_log()
        self._log_offset = len(boot_log)
        if splat := dmesg.scan(boot_log):
            self.notes.append(f"the kernel complained before the first test: {splat.line}")

    def _probe(self, guest: Guest) -> Probed:
        self._listener.phase("probing what this kernel can do")
        argv = (sys.executable, "-m", "ioxide", "probe", "--json")
        try:
            env = {"PYTHONDONTWRITEBYTECODE": "1"}
            done: Completed = guest.run(argv, env=env, cwd=TREE, timeout_s=60 + 10 * guest.slowdown)
        except TimeoutError as error:
            raise RunOver(f"the probe in the guest did not end: {error}") from error
        (self._plan.results / "probe.json").write_bytes(done.stdout)
        try:
            probe = Probed.from_json(done.stdout)
        except ValueError as error:
            said = done.stderr.decode("utf-8", "backslashreplace")
            raise RunOver(
                f"the probe in the guest ended with status {done.status} and no report: {error}",
                tail=said,
            ) from error
        if probe.release != guest.uname:
            raise RunOver(f"the probe speaks of {probe.release!r}, the guest is {guest.uname!r}")
        return probe

    def _start_pytest(self) -> None:
        guest, expected, probe = self.guest, self.expected, self.probe
        assert guest is not None
        assert expected is not None
        assert probe is not None
        self._listener.phase("starting pytest in the guest")
        self._finished_in_process = 0
        self._out, self._in = Numberer(), Checker(FROM_GUEST)
        self._output.clear()
        env = {
            # Entry points of other plugins cost seconds under emulation, and the ids must be
            # those of the host, which names the plugins it needs.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            # What was pushed was compared; nothing is to be added to it.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "HOME": "/tmp",
            "LC_ALL": "C.UTF-8",
        }
        argv = (sys.executable, "-m", "pytest", *self._plan.arguments)
        self._process = process = guest.spawn(argv, env=env, cwd=TREE)
        hello = self._expect(Said.HELLO, 30 + 10 * guest.slowdown)
        for name, wanted in expected.to_json().items():
            if name != "kernel" and hello[name] != wanted:
                raise RunOver(
                    f"the guest proves the wrong {name}: {hello[name]!r}, expected {wanted!r}"
                )
        process.send(
            self._out.message(Told.WELCOME, expected=expected.to_json(), probe=probe.to_object())
        )
        collected = self._expect(Said.COLLECTED, 60 + 15 * guest.slowdown)
        if collected["errors"]:
            raise RunOver(
                f"{len(collected['errors'])} collection errors in the guest",
                tail="\n".join(str(error) for error in collected["errors"]),
            )
        if different := differences(
            self._plan.selected, collected["ids"], subset=self._plan.subset
        ):
            raise RunOver(f"host and guest collected different tests: {different}")
        self._listener.phase("")

    def _expect(self, wanted: Said, seconds: float) -> Mapping[str, Any]:
        event = self._receive(time.monotonic() + seconds)
        if event is None:
            raise RunOver(
                f"pytest in the guest said no {wanted} within {seconds:.0f} s",
                tail=f"{self._console_tail()}\n{self._output_tail()}",
            )
        if isinstance(event, Exited):
            self._process = None
            raise _Gone(_died(event.status), tail=self._console_tail())
        kind, message = self._check(event)
        if kind == Said.TROUBLE:
            raise _Gone(f"{message['text']}")
        if kind == Said.DONE:
            # It gave up in good order (a usage error, say); its last output names the cause.
            self._receive(time.monotonic() + seconds)
            raise _Gone(f"it ended before it said {wanted}", tail=self._console_tail())
        if kind != wanted:
            self._lied(f"it said {kind} where {wanted} was due")
        return message

    def _drop_guest(self) -> None:
        if self.guest is not None:
            # The whole log, once more than the slices: it is what one reads first.
            log = self.guest.console.with_name("kernel.log")
            with suppress(LabError):
                log.write_bytes(self.guest.kernel_log())
        self.guest = self._process = None
        self._stack.close()
        self._stack = ExitStack()

    def finish(self) -> None:
        """Let the guest's pytest say its last word, then shut the guest down."""
        try:
            if self._process is not None:
                self._say_goodbye()
        except (GuestLost, _Gone) as error:
            self.problems.append(f"the guest was lost after its last test: {error}")
        except RunOver as error:
            self.problems.append(error.message)
        finally:
            self.close()

    def _say_goodbye(self) -> None:
        guest, process = self._present()
        self._output.clear()
        process.send(self._out.message(Told.STOP))
        deadline = time.monotonic() + 20 + 5 * guest.slowdown
        said: int | None = None
        while True:
            event = self._receive(deadline)
            if event is None:
                self.problems.append("pytest in the guest did not end when told to")
                return
            if isinstance(event, Exited):
                if said is None:
                    self.problems.append(f"pytest in the guest ended early: {_died(event.status)}")
                elif said != event.status:
                    self.problems.append(
                        f"pytest in the guest failed after its last test: it said {said}, then "
                        f"{_died(event.status)}"
                    )
                    self.tail = self._output_tail()
                break
            kind, message = self._check(event)
            if kind == Said.TROUBLE:
                self.problems.append(f"pytest in the guest: {message['text']}")
            elif kind == Said.REPORT:
                self._lied(f"it reported {message['id']!r} after its last test")
            elif kind != Said.DONE or said is not None:
                self._lied(f"it said {kind} after its last test")
            elif message["finished"] != self._finished_in_process:
                self._lied(
                    f"it counts {message['finished']} tests, {self._finished_in_process} came"
                )
            else:
                said = message["status"]
        log = guest.kernel_log()
        if splat := dmesg.scan(log[self._log_offset :]):
            self.faults.append(f"the kernel complained after the last test: {splat.line}")

    def close(self) -> None:
        """Shut the guest down now, whatever it is doing; safe to call twice."""
        self._drop_guest()


def _died(status: int) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"the test process was killed by {name}"
    return f"the test process ended with status {status} of its own accord"
