# SPDX-License-Identifier: MIT
"""A booted guest, and the processes in it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..arch import Death
from ..errors import GuestLost, LabError
from ..kernels import Kernel
from ..wishes import Wishes
from . import pull as pulling
from .console import Console
from .events import Completed, Event, Exited, Output, Stream
from .inguest.frames import CHUNK, to_bytes, to_text
from .kmsg import Gap, Piece, Reader, Record
from .link import ANSWER_S, Inbox, Link
from .machine import Hypervisor
from .printed import Printed
from .processor import Accel
from .pull import Pulled

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

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

    @property
    def ended(self) -> bool:
        """Whether its end was told; `receive` may have that still to give."""
        return self._inbox.ended

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
        hypervisor: Hypervisor | None = None,
        printed: Path | None = None,
    ) -> None:
        self.kernel = kernel
        self.accel = accel
        self.entry = ""
        """How its kernel was entered, and why so, if not as usual."""
        self.wishes = Wishes()
        """What it was asked to have, and has."""
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
        self.hypervisor = hypervisor
        """Who looks into it from outside; None if nobody can."""
        self.printed = Printed(printed)
        """What its processes have written to the port that is here at once."""
        self.console = console.path
        self._console = console
        self._reader = Reader()
        self._link = link
        self._processes = 0

    def push_tree(self, tar: bytes, directory: str) -> None:
        """Unpack a tar (of GNU's format, compressed by gzip or not) below `directory`, which is
        made if missing.

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

    def pull(
        self,
        path: str,
        destination: Path,
        *,
        most_bytes: int = pulling.MOST_BYTES,
        timeout_s: float = 600.0,
    ) -> Pulled:
        """Copy the file, or the directory with all below it, that is at `path` in the guest to
        `destination`, whose parent has to exist. A link at `path` is followed.

        Nothing is written outside `destination`. Files that are there are replaced; sockets,
        devices and links that lead out of what is pulled are left out.

        Raises LabError when there is no such thing, it is more than `most_bytes`, or it cannot be
        written here; TimeoutError after `timeout_s` seconds, and GuestLost.
        """
        landing = pulling.Landing(path, destination, most_bytes=most_bytes)
        process = self._start(pulling.command(path, most_bytes), env={}, cwd="/", stdin=False)
        deadline = time.monotonic() + timeout_s
        words = bytearray()
        try:
            while not isinstance(event := process.receive(deadline - time.monotonic()), Exited):
                if isinstance(event, Output) and event.stream is Stream.STDOUT:
                    landing.take(event.data)
                elif isinstance(event, Output):
                    words = (words + event.data)[-1000:]
            if event.status != 0:
                said = words.decode(errors="replace").strip().splitlines() or [""]
                raise LabError(f"{path} could not be read in the guest: {said[-1]}")
            return landing.finish()
        except TimeoutError:
            self._kill_for_good(process)
            raise TimeoutError(f"{path} had not come after {timeout_s:g} s") from None
        except LabError as error:
            if not isinstance(error, GuestLost):
                self._kill_for_good(process)
            raise
        finally:
            landing.close()

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
        if process.ended:
            return
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

    def ignore_interrupt(self) -> None:
        """An interrupt ends no wait any more, for who has a last question after it."""
        self._link.ignore_interrupt()

    def ping(self, timeout_s: float = ANSWER_S) -> None:
        """Return once the agent has answered. Raises GuestLost if it does not within
        `timeout_s` seconds."""
        self._link.call("ping", timeout_s=timeout_s)
