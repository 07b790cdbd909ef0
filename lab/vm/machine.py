# SPDX-License-Identifier: MIT
"""What the lab has to know of a machine that a launcher made, and what all of them have in common.

A launcher provides a stream of bytes to the agent, a console, and the process that the machine ends
with. Whatever else one of them can tell is an optional fact: nothing above presumes a monitor of
QEMU's or a virtio-serial port.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..arch import Death
from .console import Console
from .standing import Standing

CMDLINE = (
    # The kernel's own words from WARN up during boot; the agent opens the rest. loglevel=4 would
    # keep WARN itself off the console.
    *("quiet", "loglevel=5"),
    # More than ten quick writes to /dev/kmsg are dropped without a word otherwise (seen on 6.12).
    "printk.devkmsg=on",
    # The log is read between two tests; Debian's 128 KiB hold little more than the boot's words.
    "log_buf_len=2M",
    # A crash ends the guest at once, -no-reboot ends QEMU with it.
    *("oops=panic", "panic=-1"),
    # Boot time under emulation: together 0.5 to 0.8 s (6.12).
    *("mitigations=off", "cryptomgr.notests", "nokaslr"),
    *("audit=0", "apparmor=0", "selinux=0", "rcupdate.rcu_expedited=1"),
    # -cpu max has RDRAND under TCG too; without trust the first getrandom waits for jitter.
    "random.trust_cpu=on",
    # A busy host stops an emulated CPU for longer than the 20 s a soft lockup needs to be told.
    *("watchdog_thresh=60", "rcupdate.rcu_cpu_stall_timeout=120"),
)
"""What every guest's kernel is told, whoever boots it."""


class ByteStream(Protocol):
    """The host's end of the line to an agent: a connected socket, or what behaves like one."""

    def fileno(self) -> int:
        """A descriptor for poll(2)."""
        ...

    def setblocking(self, flag: bool, /) -> None:
        """With False, the two below raise BlockingIOError instead of waiting."""
        ...

    def send(self, data: memoryview, /) -> int:
        """Send some of the bytes; how many. Raises OSError."""
        ...

    def recv(self, most: int, /) -> bytes:
        """So many bytes at most; none when the other side has closed it. Raises OSError."""
        ...


class HostProcess(Protocol):
    """The process of this host that a machine ends with."""

    @property
    def pidfd(self) -> int:
        """A descriptor that is readable once it has ended."""
        ...

    def ended(self, timeout_s: float = 0) -> bool:
        """Whether it has ended, waiting up to `timeout_s` seconds for that."""
        ...

    def how_it_ended(self) -> str:
        """A sentence about its end; only once it has ended."""
        ...

    def seconds_without_processor(self) -> float:
        """How long it was ready to run and had to wait; 0 where that is not known."""
        ...


class Hypervisor(Protocol):
    """What runs a machine, for who wants to look into it from outside."""

    def describe(self, *, times: int = 1, apart_s: float = 0.0) -> Standing:
        """Where the processors stand, asked for so often, so many seconds apart. Never raises for a
        machine that does not tell."""
        ...

    def registers(self) -> str:
        """All registers of all processors. Raises LabError."""
        ...

    def dump(self, file: Path) -> None:
        """Write the guest's memory into this file, for drgn, crash or gdb; of a guest that has
        ended, what it had then, if that was to be kept. Raises LabError."""
        ...

    def serve_gdb(self, door: Path) -> None:
        """Let one gdb after the other debug the guest by the socket `door`. Raises LabError."""
        ...

    def end_gdb(self) -> None:
        """No gdb any more, and the guest goes on. Raises LabError."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """A started machine."""

    process: HostProcess
    console: Console
    stray: Path
    """Where output goes that nobody asked for; the file need not exist."""
    agent: ByteStream
    hypervisor: Hypervisor | None = None
    """None if nobody can look into it."""
    printed: Path | None = None
    """Where a process's words go that are to be here at once, if there is such a port."""
    deaths: Sequence[Death] = ()
    """By what fault of its emulator it can die."""


Start = Callable[[Sequence[str]], AbstractContextManager[Machine]]
"""Starts a machine when it is given the lab's words for the kernel's command line."""


def new_logs(results: Path) -> tuple[Path, Path, Path, Path]:
    """Fresh names for a guest's logs (console, stray output, what a test has printed, QEMU's
    words): a run may need more than one guest."""
    results.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        console = results / f"console{suffix}.log"
        try:
            console.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        names = ("stray", "printed", "qemu")
        stray, printed, words = (results / f"{name}{suffix}.log" for name in names)
        return console, stray, printed, words
