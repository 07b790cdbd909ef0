# SPDX-License-Identifier: MIT
"""A booted guest, and the processes in it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..arch import Death, Entry
from ..errors import GuestLost, LabError, NoSignOfLife
from ..kernels import Kernel, KernelFiles
from .channel import Channel
from .console import Console
from .devices import Device
from .emulator import first_sign
from .entry import image, other_than, remember, remembered
from .entry import usual as usual_entry
from .events import Completed, Event, Exited, Output, Stream
from .inguest.agent import CHUNK, SPIN, spin, to_bytes, to_text
from .initramfs import build_initramfs, build_modules_image
from .kmsg import Gap, Piece, Reader, Record
from .link import ANSWER_S, Inbox, Link
from .machine import Machine, started
from .processor import Accel, AccelKind
from .silence import Silence

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

_BOOT_S = {AccelKind.KVM: 30.0, AccelKind.TCG: 120.0}
"""How long a guest may take to its first word, in seconds. An idle machine needs 4 under TCG; a
hung guest is rare and a busy machine is not."""
_OF_SOURCE: Mapping[str, Sequence[str]] = {
    # The kernel loads what its own build signed and nothing else; some of Debian's releases have
    # their modules vouched for by nothing but this (lab/kernels/debian.py).
    "debian": ("module.sig_enforce=1",),
}
_SIGKILL = 9
_MOST_OUTPUT = 256 << 20
_LONGEST_MARK = 900
"""The kernel refuses a longer write to /dev/kmsg (LOG_LINE_MAX, 976 bytes in 6.12)."""


class Process:
    """A process in the guest. Not for use from several threads at once."""

    def __init__(self, link: Link, inbox: Inbox) -> None:
        self._link = link
        self._inbox = inbox

    def send(self, obj: Mapping[str, Any]) -> None:
        """Send one JSON object as a line to the process's control socket. Raises GuestLost."""
        line = json.dumps(obj).encode() + b"\n"
        for start in range(0, len(line), CHUNK):
            piece = to_text(line[start : start + CHUNK])
            self._link.call("control", process=self._inbox.number, data=piece)

    def receive(self, timeout_s: float) -> Event:
        """The process's next event; `Exited` is its last.

        Raises TimeoutError after `timeout_s` seconds, GuestLost, and LabError when there can be no
        event any more.
        """
        return self._link.event(self._inbox, timeout_s)

    def kill(self, signal: int = _SIGKILL) -> None:
        """Send `signal` to the process (SIGKILL: to everything it started, too). Its end is told
        by `receive`; nothing happens when it has ended already. Raises GuestLost."""
        self._link.call("kill", process=self._inbox.number, signal=signal)

    def write(self, data: bytes, *, last: bool = False) -> int:
        """Feed the process's standard input, `last` closing it behind this. Returns how many bytes
        wait in the guest because the process does not read: feed no more while they are many.

        Only for a process spawned with `stdin` or `window`. Raises GuestLost.
        """
        left = 0
        for start in range(0, max(len(data), 1), CHUNK):
            ends = last and start + CHUNK >= len(data)
            piece = to_text(data[start : start + CHUNK])
            number = self._inbox.number
            left = self._link.call("stdin", process=number, data=piece, last=ends).get("left", 0)
        return left

    def resize(self, window: tuple[int, int]) -> None:
        """Tell the process that its terminal now has so many (rows, columns). Raises GuestLost."""
        self._link.call("window", process=self._inbox.number, size=list(window))

    def wait(self, others: Sequence[int], timeout_s: float) -> set[int]:
        """Wait until `receive` may have something or one of the descriptors `others` is readable,
        for at most `timeout_s` seconds; returns which of `others` are."""
        return self._link.wait(self._inbox, others, timeout_s)


class Guest:
    """A guest whose agent has proved its identity. Not for use from several threads at once.

    After a GuestLost every call raises it again.
    """

    def __init__(
        self,
        *,
        kernel: Kernel,
        accel: Accel,
        nonce: str,
        uname: str,
        boot_seconds: float,
        slowdown: float,
        memlock: int,
        console: Console,
        link: Link,
        deaths: Sequence[Death] = (),
    ) -> None:
        self.kernel = kernel
        self.accel = accel
        self.entry = ""
        """How its kernel was entered, and why so, if not as usual."""
        self.nonce = nonce
        self.uname = uname
        """What the guest's own uname says."""
        self.boot_seconds = boot_seconds
        """From the start of QEMU to the agent's first word."""
        self.slowdown = slowdown
        """How many times longer than this host the guest needs for the same Python."""
        self.memlock = memlock
        """Bytes an ordinary process in it may lock (RLIMIT_MEMLOCK), -1 for no limit."""
        self.deaths = deaths
        """By what fault of its emulator it can die."""
        self.console = console.path
        self._console = console
        self._reader = Reader()
        self._link = link
        self._processes = 0

    def push_tree(self, tar: bytes, directory: str) -> None:
        """Unpack a tar (compressed or not) below `directory`, which is made if missing.

        Raises GuestLost, and LabError when it is no tar.
        """
        for start in range(0, max(len(tar), 1), CHUNK):
            self._link.call(
                "tar",
                first=start == 0,
                last=start + CHUNK >= len(tar),
                data=to_text(tar[start : start + CHUNK]),
                directory=directory,
            )

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENVIRONMENT,
        cwd: str = "/",
        timeout_s: float,
        input: bytes = b"",
    ) -> Completed:
        """Run a command to its end; `env` adds to the guest's environment.

        Raises TimeoutError after `timeout_s` seconds, when the command and all it started have
        been killed; GuestLost; and LabError when the command cannot be started or writes more
        than 256 MiB.
        """
        deadline = time.monotonic() + timeout_s
        process = self._start(argv, env=env, cwd=cwd, stdin=True)
        process.write(input, last=True)
        output = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        while True:
            try:
                event = process.receive(deadline - time.monotonic())
            except TimeoutError:
                self._kill_for_good(process)
                words = bytes(output[Stream.STDERR] or output[Stream.STDOUT])[-300:]
                raise TimeoutError(
                    f"{argv[0]} was not done after {timeout_s:g} s; its last words: {words!r}"
                ) from None
            match event:
                case Output(stream, data):
                    output[stream] += data
                    if len(output[stream]) > _MOST_OUTPUT:
                        self._kill_for_good(process)
                        raise LabError(f"{argv[0]} wrote more than {_MOST_OUTPUT} bytes")
                case Exited(status):
                    return Completed(
                        status, bytes(output[Stream.STDOUT]), bytes(output[Stream.STDERR])
                    )

    def _kill_for_good(self, process: Process) -> None:
        process.kill()
        deadline = time.monotonic() + ANSWER_S
        try:
            while not isinstance(process.receive(deadline - time.monotonic()), Exited):
                pass
        except TimeoutError:
            self._link.lose(f"a killed process did not end within {ANSWER_S:g} s")

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = NO_ENVIRONMENT,
        cwd: str = "/",
        stdin: bool = False,
        window: tuple[int, int] | None = None,
    ) -> Process:
        """Start a command; it inherits a control socket, whose number is in LAB_CONTROL_FD.

        With `stdin` its standard input is what `Process.write` feeds, otherwise there is none.
        With `window` it has a terminal of so many (rows, columns) for all three streams, and all
        its output is told as standard output.

        Raises GuestLost, and LabError when the command cannot be started.
        """
        return self._start(argv, env=env, cwd=cwd, stdin=stdin, window=window)

    def _start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: bool,
        window: tuple[int, int] | None = None,
    ) -> Process:
        self._processes += 1
        number = self._processes
        inbox = self._link.open(number)
        try:
            self._link.call(
                "spawn",
                process=number,
                argv=list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                tty=None if window is None else list(window),
            )
        except LabError:
            self._link.drop(number)
            raise
        return Process(self._link, inbox)

    def console_log(self) -> bytes:
        """The bytes of the kernel's console so far: all that is left of a guest that died.

        From the agent's first word on that is everything but debug messages; before, warnings and
        worse.
        """
        return self._console.read(raw=True)

    def read_kernel_log(self, mark: str = "") -> Piece:
        """What the kernel wrote into its log since this was last called, from its first line on.
        Then write the line `mark` into it, unless it is empty.

        Line breaks in `mark` become spaces, and more than 900 bytes are cut. Raises GuestLost.
        """
        line = " ".join(mark.split()).encode()[:_LONGEST_MARK].decode(errors="ignore")
        deadline = time.monotonic() + ANSWER_S
        records: list[Record] = []
        gaps: list[Gap] = []
        more = True
        while more:
            if time.monotonic() > deadline:
                self._link.lose(f"the kernel's log did not end within {ANSWER_S:g} s")
            answer = self._link.call("kernel_log", mark=line)
            try:
                piece = self._reader.take(to_bytes(answer["data"]))
            except (KeyError, TypeError, ValueError) as error:
                self._link.lose(f"the agent sent a piece of the kernel's log that is none: {error}")
            records += piece.records
            gaps += piece.gaps
            more = bool(answer.get("more"))
        return Piece(records, gaps)

    def ends_within(self, timeout_s: float) -> bool:
        """Whether the machine ends within so many seconds."""
        return self._link.ended(timeout_s)

    def ping(self, timeout_s: float = ANSWER_S) -> None:
        """Return once the agent has answered. Raises GuestLost if it does not within
        `timeout_s` seconds."""
        self._link.call("ping", timeout_s=timeout_s)


@contextmanager
def boot(
    files: KernelFiles,
    *,
    rootfs: Path,
    accel: Accel,
    results: Path,
    cpus: int = 1,
    memory_mib: int = 768,
    extra_cmdline: Sequence[str] = (),
    devices: Sequence[Device] = (),
    timeout_s: float | None = None,
    interrupt: int | None = None,
) -> Iterator[Guest]:
    """Boot a guest; it is gone when the block is left, however it is left.

    Its console, stray output and QEMU's words stay in `results` (console.log, stray.log, qemu.log;
    console-2.log and so on for the next guest of one run; console-state.txt tells where the
    processors of a silent one stood). `devices` come beside those that every guest has.
    `timeout_s` is the time to the agent's first word, by default 30 s with KVM and 120 s without.
    Call it from a thread that lives as long as the guest: QEMU dies with the thread that started
    it (PR_SET_PDEATHSIG). Once the descriptor `interrupt` is readable, whoever waits for the guest
    gets a KeyboardInterrupt, as only a main thread does from a signal.

    Raises GuestLost when the guest does not come up or is not the one that was started,
    MissingTool, and LabError.
    """
    initramfs, modules = build_initramfs(files), build_modules_image(files)

    def start(cmdline: Sequence[str], entry: Entry) -> AbstractContextManager[Machine]:
        return started(
            accel=accel,
            kernel=image(files, entry),
            initramfs=initramfs,
            rootfs=rootfs,
            modules=modules,
            cmdline=(*cmdline, *extra_cmdline),
            results=results,
            cpus=cpus,
            memory_mib=memory_mib,
            devices=devices,
        )

    patience = _BOOT_S[accel.kind] if timeout_s is None else timeout_s

    def entered(entry: Entry) -> AbstractContextManager[Guest]:
        return introduced(
            files,
            lambda words: start(words, entry),
            accel=accel,
            timeout_s=patience,
            interrupt=interrupt,
        )

    usual = remembered(files, accel)
    with ExitStack() as stack:
        try:
            guest = stack.enter_context(entered(usual))
            guest.entry = (
                ""
                if usual == usual_entry()
                else f"{usual}, which has worked when {usual_entry().name} did not"
            )
        except NoSignOfLife as first:
            if (other := other_than(usual)) is None:
                raise
            try:
                guest = stack.enter_context(entered(other))
            except GuestLost as second:
                raise GuestLost(
                    f"entered {usual}: {first.reason}; entered {other}: {second.reason}",
                    console_tail=second.console_tail,
                    excuse=second.excuse,
                ) from second
            remember(files, accel, other)
            guest.entry = f"{other}; {usual}: {first.reason}"
        yield guest


@contextmanager
def introduced(
    files: KernelFiles,
    start: Callable[[Sequence[str]], AbstractContextManager[Machine]],
    *,
    accel: Accel,
    timeout_s: float,
    interrupt: int | None = None,
) -> Iterator[Guest]:
    """A guest on the machine that `start` starts when it is given the lab's words for the kernel's
    command line: once its agent has spoken, within `timeout_s` seconds, and is the one meant.

    Raises GuestLost, and what `start` raises.
    """
    nonce = secrets.token_hex(16)
    release = files.kernel.release
    words = (
        f"lab.nonce={nonce}",
        f"lab.release={release}",
        *_OF_SOURCE.get(files.kernel.source, ()),
    )
    begun = time.monotonic()
    with start(words) as machine:
        link = Link(
            Channel(machine.agent, watch=machine.qemu.pidfd, interrupt=interrupt),
            lambda cause: _lost(machine, cause),
        )
        silence = Silence(machine)
        try:
            hello = link.hello(deadline=begun + timeout_s, within_s=timeout_s, hopeless=silence.why)
        except GuestLost as lost:
            if silence.lifeless:
                raise NoSignOfLife(lost.reason, excuse=lost.excuse) from lost
            raise
        boot_seconds = time.monotonic() - begun
        if hello.get("nonce") != nonce:
            link.lose(f"the agent names the nonce {hello.get('nonce')!r}, this run's is {nonce}")
        if hello.get("release") != release:
            link.lose(f"the guest runs {hello.get('release')!r}, booted was {release}")
        memlock = hello.get("memlock")
        if type(memlock) is not int:
            link.lose(f"the agent names {memlock!r} as its limit of locked memory")
        answer = link.call("start", own_machine=True, time=time.time())
        its_spin = answer.get("spin")
        if not isinstance(its_spin, float) or its_spin <= 0:
            link.lose(f"the agent measured its speed as {its_spin!r} s")
        yield Guest(
            kernel=files.kernel,
            accel=accel,
            nonce=nonce,
            uname=release,
            boot_seconds=boot_seconds,
            slowdown=its_spin / _own_spin(),
            memlock=memlock,
            console=machine.console,
            link=link,
            deaths=machine.deaths,
        )


@cache
def _own_spin() -> float:
    return spin(SPIN)


def _lost(machine: Machine, cause: str) -> GuestLost:
    """The guest's end as its console tells it, else as seen from here."""
    # A panic's last lines and QEMU's end may be a moment behind the port's.
    ended = machine.qemu.ended(timeout_s=1.0)
    # A complaint on the console of a guest that still runs is not what it was lost to.
    reason = (machine.console.reason() or machine.qemu.how_it_ended()) if ended else ""
    sign = first_sign(machine.console.text().splitlines(), machine.deaths) if ended else None
    excuse = sign[1] if sign is not None else ""
    if not ended:
        # It hangs or lies: keep where its processors stand, nobody can ask them later.
        state = machine.console.path.with_name(machine.console.path.stem + "-state.txt")
        state.write_text(machine.monitor.describe().text)
    blamed = f"{reason} ({excuse})" if excuse else reason
    sentence = f"the guest died: {blamed} ({cause})" if reason else cause
    return GuestLost(sentence, console_tail=machine.console.tail(), excuse=excuse)
