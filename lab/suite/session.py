# SPDX-License-Identifier: MIT
"""One guest after the other: boot, push, start pytest, tell it what to run, and survive what tests
do.

What ends a process costs the test that was running its verdict and nobody else's: the next one gets
a fresh process, or a fresh guest if that is gone too.  What makes the guest unbelievable (a wrong
identity, an id nobody sent, a broken frame) ends the run: nothing such a guest says can count.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from ..errors import GuestLost, LabError
from ..facts.evidence import Life
from ..facts.probed import Probed
from ..remote.log import Log
from ..remote.losses import Gone, RunOver, Silent
from ..remote.probing import probed
from ..remote.process import TREE, check_release, console_tail
from ..remote.setting_up import set_up
from ..rules import dmesg
from ..vm import Guest
from ..wishes import Wishes
from . import home
from .common import Common
from .hang import LAST_PRINTED, Hang
from .kernel_watch import Heard, KernelWatch, said_unborn
from .memory import dumped
from .plan import Caller, Lab, Outcome, Plan, Visit
from .strangers import Strangers
from .worker import Worker

CONSOLES = "console*.log"
"""Where among its files a guest's console is: the second file is of another way to boot it."""
LOSSES_IN_A_ROW = 5
"""So many lost tests without one verdict between them, and the run is given up."""
FAULTS = 10
"""So many complaints of one time outside of tests are told one by one."""
DYING_S, DYING_PER_SLOWDOWN_S = 1.0, 0.3
"""So long, in seconds, the guest may take to its end behind a process that nobody of us killed."""
PRINTED = "output until it was interrupted"
MOST_PRINTED = 256 << 10
"""So many bytes are kept of what a test had printed when it was lost."""
MARKED_NAME = 300
"""The kernel takes log lines of less than a kilobyte, and a node id may be longer."""


class _Refused(Exception):
    """A guest with wishes of its tests' own does not come up; the others go on without it."""


class Session:
    """A guest and the pytest process in it, made when a test needs them, and those that come after
    it. All calls are one thread's, which must live until `close`."""

    def __init__(
        self,
        lab: Lab,
        plan: Plan,
        listener: Caller,
        common: Common,
        *,
        interrupt: int | None = None,
    ) -> None:
        self.problems: list[str] = []
        """What keeps the run from having proved anything, as sentences."""
        self.faults: list[str] = []
        """What disproves without belonging to one test."""
        self.notes: list[str] = []
        self.tail = ""
        """The guest's last output, when it belongs to one of the problems."""
        self.guests: list[Guest] = []
        """All that came up, in order, whether they still live or not."""
        self.logs: list[Log] = []
        """The files that its guests' words went into."""
        self.lives: list[Life] = []
        """When each of them was there."""
        self.with_pytest: list[Guest] = []
        """Those in which a test was to run."""
        self.deaths = 0
        """How many processes of pytest ended before they were told to, their guest staying up."""
        self.given_up = ""
        """Why no more tests are to be run; empty if they are."""
        self.cut_off: Outcome | None = None
        """What there is of the test that was interrupted."""
        self._lab = lab
        self._plan = plan
        self._listener = listener
        self._common = common
        self._interrupt = interrupt
        self._stack = ExitStack()
        self._guest: Guest | None = None
        self._worker: Worker | None = None
        self._strangers = Strangers()
        self._losses = 0
        self._marks = 0
        self._watch: KernelWatch | None = None
        self._before_hang = Heard()
        """What the kernel said while a test ran, until it hung."""
        self._during = ""
        """Whose the kernel's words are that were not heard yet, if they are no test's."""
        self._previous = ""

    # -- one test ----------------------------------------------------------------------------

    def run(self, name: str, following: str | None) -> Outcome:
        """Run one test in the guest. Raises RunOver when nothing more can be run at all."""
        for second_try in (False, True):
            outcome = Outcome()
            ready = self.prepare(name)
            if ready is None:
                outcome.lost = self._common.refused[self._plan.wishes_of(name)]
                return outcome  # its loss is nobody's fault in this guest
            guest, worker = ready
            outcome.guest, outcome.began = guest, time.monotonic()
            guest.printed.forget()
            after = f"after {self._previous}" if self._previous else "before the first test"
            self._during = between = f"{after} and before {name} started"
            try:
                self._marks += 1
                self._hear_others(f"start {self._marks} {name[:MARKED_NAME]}")
                self._during = f"while {name} ran"
                seconds = self._plan.test_seconds(name, guest.slowdown)
                if worker is None:
                    self._visit(Visit(name, following, guest, seconds, outcome))
                else:
                    worker.run(name, following, outcome, seconds)
                self._hear_test(name, outcome, self._cut(f"end {self._marks} ."))
            except KeyboardInterrupt:
                if worker is not None and outcome.started:
                    outcome.sections.append((PRINTED, worker.printed()))
                self.cut_off = outcome
                raise
            except Gone as cause:
                gone, heard = self._after_death(cause, worker, outcome)
                if outcome.started or second_try:
                    self._hear_test(name, outcome, heard)
                    outcome.lost = str(gone)
                    break
                # It ended before this test began: an earlier one, or a thread it left, did it.
                self._during = between
                self._blame(heard)
                self.problems.append(f"{gone}, {between}")
            else:
                break
        self._previous = name
        self._during = f"after {name}"
        outcome.guest_is_up = self._guest is not None and self._guest is outcome.guest
        self._losses = self._losses + 1 if outcome.lost else 0
        if self._losses >= LOSSES_IN_A_ROW:
            self.given_up = f"given up: {self._losses} tests in a row were lost"
        return outcome

    def _look_into_hang(self, pid: int, name: str, why: str) -> Hang:
        """What the process is at. What the kernel said before, and what it says of itself when it
        is asked, are apart: only the first can be a complaint."""
        assert self._watch is not None
        self._before_hang = Heard()
        with suppress(GuestLost):  # whoever asks next says so
            self._before_hang = self._watch.cut()
        base, dump = self._plan.results, self._plan.dump
        hang = Hang(self._watch.guest, self._watch, pid, name, why, base=base, dump=dump)
        self.logs.append(hang.log)
        return hang

    def _visit(self, visit: Visit) -> None:
        """Lend the guest to a test on the host. Raises Gone."""
        visit.outcome.started = True
        self._listener.visit(visit)
        if visit.hung:
            # It may have been ended in the middle of a word to the guest.
            tail = console_tail(visit.guest)
            raise Gone(f"{visit.hung}; its guest was given up", guest_too=True, tail=tail)

    def _after_death(
        self, gone: Gone, worker: Worker | None, outcome: Outcome
    ) -> tuple[Gone, Heard]:
        """What it was that ended, the process or the guest, and the kernel's words until then."""
        told = any(head == LAST_PRINTED for head, _ in outcome.sections)
        if not told and outcome.guest is not None:
            data = outcome.guest.printed.tail(MOST_PRINTED)
            outcome.sections.append((LAST_PRINTED, data.decode("utf-8", "backslashreplace")))
        if worker is not None and (text := worker.process.output_tail()):
            outcome.sections.append(("last output of pytest in the guest", text))
        self._worker = None
        heard = Heard()
        if not gone.guest_too and self._guest is not None:
            # A kernel that dies may take the process first, and the guest's end comes behind.
            if gone.killed:
                self._guest.ends_within(DYING_S + DYING_PER_SLOWDOWN_S * self._guest.slowdown)
            try:
                heard = self._cut()
            except Gone as guest_gone:
                gone = guest_gone
        if gone.guest_too and self._watch is not None:
            heard = self._watch.last()
            self._dump(self._watch.guest, outcome)
        if gone.tail:
            outcome.sections.append(("last lines of the guest's console", gone.tail))
        if gone.guest_too:
            self._drop_guest()
        else:
            self.deaths += 1
        return gone, heard

    # -- the kernel's words ------------------------------------------------------------------

    def _cut(self, mark: str = "") -> Heard:
        """What the kernel said since the last cut. Raises Gone."""
        assert self._watch is not None
        try:
            return self._watch.cut(mark)
        except GuestLost as lost:
            raise Gone.with_guest(lost) from lost

    def _hear_test(self, name: str, outcome: Outcome, heard: Heard) -> None:
        """The kernel said this while the test ran."""
        heard, self._before_hang = self._before_hang.then(heard), Heard()
        outcome.splats += heard.splats
        outcome.kernel_log = heard.part
        self.problems += [f"{gap}, written while {name} ran" for gap in heard.gaps]
        if outcome.splats and self._watch is not None:
            self._dump(self._watch.guest, outcome)

    def _dump(self, guest: Guest, outcome: Outcome) -> None:
        """Keep its memory if that is asked for, once a test."""
        if self._plan.dump and not outcome.memory:
            self._listener.phase("dumping the guest's memory")
            outcome.memory = dumped(guest, self._plan.results)
            self._listener.phase("")

    def _hear_others(self, mark: str = "") -> None:
        """What the kernel said since the last cut is no test's. Raises Gone."""
        self._blame(self._cut(mark))

    def _blame(self, heard: Heard) -> None:
        """The kernel said this while no test ran: a complaint disproves the run."""
        shown = heard.splats[:FAULTS]
        self.faults += [f"the kernel complained {self._during}: {splat.line}" for splat in shown]
        if left := len(heard.splats) - len(shown):
            self.faults.append(f"{left} more complaints {self._during} are in kernel.log")
        self.problems += [f"{gap}, written {self._during}" for gap in heard.gaps]

    # -- coming up and going down ------------------------------------------------------------

    def prepare(self, name: str) -> tuple[Guest, Worker | None] | None:
        """See to it that such a guest is up as the test `name` wishes for, and pytest waits in it
        unless the test runs on the host; None if it cannot be had, and `Common.refused` says why.
        Raises RunOver."""
        wishes = self._plan.wishes_of(name)
        if wishes in self._common.refused:
            return None
        if self._guest is not None and self._guest.wishes != wishes:
            self.finish()
        try:
            return self._prepare(wishes, on_host=name in self._plan.on_host)
        except _Refused as refused:
            self._common.refused[wishes] = str(refused)
            return None

    def _prepare(self, wishes: Wishes, *, on_host: bool) -> tuple[Guest, Worker | None]:
        try:
            guest = self._guest or self._boot(wishes)
            if on_host:
                self._known(guest)
                return guest, None
            return guest, self._worker or self._start_pytest(guest)
        except Gone as gone:
            tail = "\n".join(part for part in (gone.tail, self._tail()) if part)
            if wishes != self._plan.wishes:
                raise self._of_no_use(wishes, str(gone), tail) from gone
            if gone.guest_too:
                raise RunOver(str(gone), tail=tail) from gone
            raise RunOver(f"pytest did not start in the guest: {gone}", tail=tail) from gone
        except GuestLost as lost:
            if wishes != self._plan.wishes:
                raise self._of_no_use(wishes, lost.reason, lost.console_tail) from lost
            raise RunOver(lost.reason, tail=lost.console_tail, hint=lost.hint) from lost
        except Silent as silent:
            silent.tail = silent.tail or self._tail()
            if wishes != self._plan.wishes:
                raise self._of_no_use(wishes, silent.message, silent.tail) from silent
            raise
        except RunOver as over:
            over.tail = over.tail or self._tail()
            raise

    def _of_no_use(self, wishes: Wishes, why: str, tail: str) -> _Refused:
        """Such a guest came up, and no test can run in it: that costs those that ask for it."""
        self._drop_guest()
        self.tail = tail
        return _Refused(f"a guest with {wishes} is of no use: {why}")

    def _tail(self) -> str:
        if self._worker is not None:
            return self._worker.process.tail()
        return console_tail(self._guest) if self._guest is not None else ""

    def _boot(self, wishes: Wishes) -> Guest:
        number = self._common.number()
        such = f" with {wishes}" if wishes != self._plan.wishes else ""
        self._listener.phase((f"booting guest {number}" if number > 1 else "booting") + such)
        where = self._plan.results
        if number > 1:
            where = where / f"guest-{number}"
            where.mkdir()
        self._during = f"while guest {number} booted"
        life = Life(number, time.monotonic())
        booting = self._lab.boot(where, wishes=wishes, interrupt=self._interrupt)
        try:
            guest = self._stack.enter_context(booting)
        except LabError as error:
            self._hear_unborn(error, sorted(where.glob(CONSOLES)))
            if such:
                raise _Refused(f"there is no guest{such}: {error}") from error
            raise
        self._guest = guest
        self._strangers = Strangers()
        self._watch = KernelWatch(guest, self._plan.allowed)
        self.logs.append(self._watch.log)
        self.guests.append(guest)
        life.up = time.monotonic()
        self.lives.append(life)
        self._listener.phase(
            f"{guest.uname} is up: agent after {guest.boot_seconds:.1f} s, "
            f"{guest.accel.kind} ({guest.accel.reason}), {guest.slowdown:.1f}x slower than here"
        )
        check_release(guest)
        self._hear_others()
        self._during = f"while guest {number} was prepared"
        guest.push_tree(self._plan.tar, TREE)
        if self._plan.setup:
            self._set_up(guest)
        if not self._plan.probe:
            return guest
        # Nothing else is to run in a guest that is probed: some answers are about time. Where
        # another guest is, this one has something better to do than to wait.
        self._common.probed(wishes, lambda: self._probe(guest), wait=False)
        return guest

    def _hear_unborn(self, error: LabError, consoles: Iterable[Path]) -> None:
        """A guest never came up, whether its tests alone are lost for that or the run."""
        said = said_unborn(error, consoles)
        self._blame(Heard(dmesg.scan(said, self._plan.kernel, self._plan.allowed)))

    def _set_up(self, guest: Guest) -> None:
        """Run the repository's own command. Raises RunOver when it fails."""
        self._listener.phase("running the set-up command")
        try:
            set_up(guest, self._plan.setup, self._plan.environment)
        except RunOver as over:
            self._hear_others()
            if guest.wishes == self._plan.wishes:
                raise
            raise Gone(over.message, tail=over.tail) from over  # it is so there alone
        self._hear_others()

    def _probe(self, guest: Guest) -> Probed:
        self._listener.phase("probing what this kernel can do")
        self._hear_others()
        before, self._during = self._during, "while it was probed"
        usual = guest.wishes == self._plan.wishes
        where = self._plan.results if usual else guest.console.parent
        try:
            probe = probed(
                guest,
                self._plan.probe,
                environment=self._plan.environment,
                keep=where / "probe.json",
            )
        except RunOver as over:
            if usual:
                raise
            raise Gone(over.message, tail=over.tail) from over  # it is so there alone
        self._hear_others()
        self._during = before
        return probe

    def _known(self, guest: Guest) -> Probed | None:
        """What its kernel can do, asked of this guest or another; None without a probe."""
        if not self._plan.probe:
            return None
        probe = self._common.probed(guest.wishes, lambda: self._probe(guest), wait=True)
        assert probe is not None
        return probe

    def _start_pytest(self, guest: Guest) -> Worker:
        if guest not in self.with_pytest:
            self.with_pytest.append(guest)
        self._listener.phase("starting pytest in the guest")
        self._hear_others()
        self._during = "while pytest started in the guest"
        self._worker = worker = Worker(
            guest,
            arguments=self._plan.arguments,
            environment=self._plan.environment,
            log=guest.console.with_name("guest-output.log"),
            listener=self._listener,
            hang=self._look_into_hang,
        )
        self.logs.append(worker.process.log)
        worker.greet(self._plan.expected(guest), self._known(guest), self._plan.programs)
        if strange := self._strangers.problem(worker.strangers, self._previous):
            self.problems.append(strange)
        due = [name for name in self._plan.selected if name not in self._plan.on_host]
        worker.compare(due, subset=self._plan.subset)
        self._hear_others()
        self._listener.phase("")
        return worker

    def finish(self) -> None:
        """Let the guest's pytest say its last word, then shut the guest down."""
        guest, worker = self._guest, self._worker
        self._during = "after the last test"
        try:
            if guest is not None and worker is not None:
                if problems := worker.stop():
                    self.problems += problems
                    self.tail = worker.process.output_tail()
                self._hear_others()
                self.notes += home.bring(guest, worker.left, self._plan.root)
        except Gone as gone:
            self.problems.append(f"the guest was lost after its last test: {gone}")
            self.tail = gone.tail
        except GuestLost as lost:
            self.problems.append(f"the guest was lost after its last test: {lost.reason}")
            self.tail = lost.console_tail
        except RunOver as over:
            self.problems.append(over.message)
            self.tail = over.tail
        finally:
            self.close()

    def close(self) -> None:
        """Shut the guest down now, whatever it is doing; safe to call twice."""
        self._drop_guest()

    def _drop_guest(self) -> None:
        watch, self._watch = self._watch, None
        try:
            if watch is not None:
                self._blame(watch.last())
        except KeyboardInterrupt:
            pass  # the run is over, whatever this kernel says
        except LabError as error:
            self.problems.append(f"what the kernel said last is not known: {error}")
        finally:
            self._guest = self._worker = None
            if self.lives and not self.lives[-1].ended:
                self.lives[-1].ended = time.monotonic()
            stack, self._stack = self._stack, ExitStack()
            stack.close()
