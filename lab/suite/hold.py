# SPDX-License-Identifier: MIT
"""`--hold` and `--gdb`: the guest of a test that is not good stays as it is until a person has seen
it."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..errors import LabError
from ..facts.records import Record
from ..facts.verdicts import good
from ..remote.process import ENVIRONMENT, TREE
from ..report.progress import Progress
from ..vm import Guest, terminal
from .column import Column
from .lanes import Ran

_LONGEST_DOOR = 100
"""Bytes of a socket's name that the kernel takes for sure (unix(7): 107)."""


def check(config: pytest.Config) -> None:
    """Raise pytest.UsageError where nobody could look into a guest."""
    for flag in asked(config):
        try:
            with terminal.own():
                pass
        except LabError as error:
            raise pytest.UsageError(
                f"{flag} is for a person at a terminal: {error}; without it, the files of the run "
                "tell what there is"
            ) from error


def asked(config: pytest.Config) -> list[str]:
    """Which of the two options were given."""
    return [flag for flag in ("--hold", "--gdb") if config.getoption(f"lab_{flag[2:]}")]


class Hold:
    """Opens guests to a person. All calls are the main thread's, while the lane of the guest waits
    for its verdict to be in the book."""

    def __init__(self, config: pytest.Config, progress: Progress) -> None:
        self._asked = asked(config)
        self._config, self._progress = config, progress

    def look(self, column: Column, ran: Ran, record: Record, *, others: int) -> None:
        """Let a person see the guest of this test, unless the test is good; `others` are as many
        guests that run tests meanwhile."""
        if not self._asked or good(record.verdict):
            return
        flags = " and ".join(self._asked)
        what = f"{column.label(ran.turn)} is {record.verdict}"
        guest = ran.outcome.guest
        if guest is None or not ran.outcome.guest_is_up:
            why = "had no guest" if guest is None else "took its guest along"
            self._progress.line(f"lab: {flags}: {what}, and {why}: there is nothing to look into")
            return
        try:
            with self._progress.aside(), self._input(), terminal.own() as tty:
                self._progress.line(f"lab: {flags}: {what}")
                if others:
                    many = "the other guest waits" if others == 1 else f"{others} other guests wait"
                    self._progress.line(f"lab: {many} when its present test is done")
                with self._gdb(guest):
                    self._wait(column, guest, tty)
        except LabError as error:
            self._progress.line(f"lab: {flags}: {column.cell} cannot be held any longer: {error}")

    def _wait(self, column: Column, guest: Guest, tty: int) -> None:
        """Until the person is done. Raises LabError."""
        if "--hold" not in self._asked:
            self._progress.line("lab: the guest stands still until you press Enter")
            while (typed := os.read(tty, 1)) and typed not in b"\r\n":
                pass
            return
        self._progress.line(
            f"lab: a shell in its guest, in {TREE}; what tests left is in /tmp; the run goes on "
            "when it ends (exit, Ctrl-D)"
        )
        assert column.work is not None
        environment = {
            **ENVIRONMENT,
            **column.work.plan.environment,
            "PATH": ":".join((f"{sys.prefix}/bin", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            "TERM": os.environ.get("TERM", "vt100"),
            "PS1": f"[{guest.kernel.upstream} $PWD]# ",
        }
        shell = guest.spawn(
            ["/bin/sh", "-i"], env=environment, cwd=TREE, window=terminal.window(tty)
        )
        terminal.attach(shell, stdin=tty, stdout=tty)

    @contextmanager
    def _gdb(self, guest: Guest) -> Iterator[None]:
        """Within the block gdb may come, if it was asked for. Raises LabError."""
        if "--gdb" not in self._asked:
            yield
            return
        if guest.hypervisor is None:
            raise LabError("nobody can look into this guest from outside")
        with tempfile.TemporaryDirectory(prefix="lab-gdb-", dir=_short()) as directory:
            door = Path(directory) / "gdb"
            guest.hypervisor.serve_gdb(door)
            release = guest.kernel.release
            file = f"/usr/lib/debug/boot/vmlinux-{release}"
            if guest.kernel.source == "debian":
                note = f", which linux-image-{release}-dbg has"
            else:
                file, note = "vmlinux", ", of the build, with debug information"
            remote = f"target remote {door}"
            self._progress.line(f"lab: gdb waits: {shlex.join(['gdb', file, '-ex', remote])}")
            self._progress.line(
                f"lab: the symbols are in {file}{note}; gdb stops the guest until it detaches"
            )
            try:
                yield
            finally:
                guest.hypervisor.end_gdb()

    @contextmanager
    def _input(self) -> Iterator[None]:
        """pytest keeps standard input from tests; nobody may wait for what it holds back."""
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            yield
            return
        capture.suspend_global_capture(in_=True)
        try:
            yield
        finally:
            capture.resume_global_capture()
            capture.suspend_global_capture()


def _short() -> str | None:
    """A directory whose names are short enough for a socket's; None for the usual one."""
    longest = len(os.fsencode(tempfile.gettempdir())) + len("/lab-gdb-XXXXXXXX/gdb")
    return None if longest <= _LONGEST_DOOR else "/tmp"
