# SPDX-License-Identifier: MIT
"""The machine a guest runs on: which devices, which command line."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import arch
from ..arch import Death
from . import monitor
from .console import Console
from .devices import Boot, Device, Disk, FilePort, Monitor, PortBus, SerialConsole, SocketPort
from .emulator import deaths
from .inguest.agent import PORT, STRAY
from .processor import COMMON, Accel, processor_arguments
from .qemu import Qemu, program, running

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


@dataclass(frozen=True, slots=True)
class Machine:
    """A started machine and the host's ends of its ports."""

    qemu: Qemu
    console: Console
    stray: Path
    agent: socket.socket
    monitor: monitor.Monitor
    deaths: Sequence[Death]
    """By what fault of its emulator it can die."""


@contextmanager
def started(
    *,
    accel: Accel,
    kernel: Path,
    initramfs: Path,
    rootfs: Path,
    modules: Path,
    cmdline: Sequence[str],
    results: Path,
    cpus: int,
    memory_mib: int,
    devices: Sequence[Device] = (),
) -> Iterator[Machine]:
    """A running machine; it is gone when the block is left. Its logs stay in `results`.

    `devices` are what it has beside those that every guest needs.
    """
    with ExitStack() as stack:
        agent, its_agent = (stack.enter_context(one) for one in socket.socketpair())
        ours, its_monitor = (stack.enter_context(one) for one in socket.socketpair())
        console, stray, words = new_logs(results)
        its = arch.here()
        parts: Sequence[Device] = (
            SerialConsole(console),
            PortBus(),
            SocketPort(PORT, its_agent.fileno()),
            FilePort(STRAY, stray),
            Monitor(its_monitor.fileno()),
            Disk("root", rootfs),
            Disk("modules", modules),
            *devices,
            Boot(
                kernel,
                initramfs,
                (f"console={its.console}", *its.console_cmdline, *its.cmdline, *CMDLINE, *cmdline),
            ),
        )
        arguments = [
            *COMMON,
            *processor_arguments(accel, cpus=cpus),
            *("-m", f"{memory_mib}M"),
            *(word for part in parts for word in part.arguments()),
        ]
        command = (str(program()), *arguments)
        qemu = stack.enter_context(running(command, log=words, inherit=(its_agent, its_monitor)))
        known = deaths(accel, cpus=cpus)
        yield Machine(qemu, Console(console), stray, agent, monitor.Monitor(ours), known)


def new_logs(results: Path) -> tuple[Path, Path, Path]:
    """Fresh names for a guest's logs (console, stray output, QEMU's words): a run may need more
    than one guest."""
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
        return console, results / f"stray{suffix}.log", results / f"qemu{suffix}.log"
