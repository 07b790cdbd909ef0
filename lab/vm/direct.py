# SPDX-License-Identifier: MIT
"""The lab itself as a launcher: QEMU with an image of this Python as root."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from .. import arch
from ..arch import Entry
from ..errors import GuestLost, NoSignOfLife
from ..kernels import Flavour, Kernel, KernelFiles
from ..wishes import Wishes
from . import devices as parts
from . import launcher, monitor
from .console import Console
from .devices import (
    Boot,
    CoreInfo,
    Device,
    Disk,
    FilePort,
    Monitor,
    PortBus,
    SerialConsole,
    SocketPort,
)
from .emulator import deaths
from .entry import image, other_than, remember, remembered
from .entry import usual as usual_entry
from .guest import Guest
from .inguest.agent import PORT, PRINTED, STRAY
from .initramfs import build_initramfs, build_modules_image
from .introduction import introduced
from .machine import CMDLINE, Machine, new_logs
from .memory import end_of, memory_at_end
from .processor import COMMON, Accel, AccelKind, processor_arguments
from .qemu import program, running
from .rootfs import build_rootfs

_BOOT_S = {AccelKind.KVM: 30.0, AccelKind.TCG: 120.0}
"""How long a guest may take to its first word, in seconds. An idle machine needs 4 under TCG; a
hung guest is rare and a busy machine is not."""
_DEBUG_FACTOR = 4
"""A kernel that looks for bugs in itself takes so much longer to boot."""
_DEBUG_CMDLINE = ("kasan_multi_shot",)
"""KASAN reports one bad access of a boot and is silent from then on (6.12), but a guest runs many
tests."""


CPUS, MEMORY_MIB = 1, 768
"""What a guest has if nothing else is wished for; memory in MiB."""


class DirectQemu:
    """See `Launcher`."""

    name = "qemu"
    words = ""
    has_our_files = False

    def __init__(self, leave_out: Sequence[str] = ()) -> None:
        """`leave_out` are packages of this Python's environment that guests need not have."""
        self._leave_out = tuple(leave_out)

    def bootable(self, kernel: Kernel) -> Kernel:
        """See `Launcher`: any."""
        return kernel

    def prepare(
        self,
        files: KernelFiles,
        *,
        accel: Accel,
        wishes: Wishes,
        writable: Sequence[Path] = (),
        dumps: bool = False,
    ) -> launcher.Boot:
        """See `Launcher`; `writable` is in vain, for its guests have copies."""
        del writable
        devices = parts.wished(wishes.devices)
        rootfs = build_rootfs(self._leave_out)

        def another(
            results: Path, *, interrupt: int | None = None
        ) -> AbstractContextManager[Guest]:
            return boot(
                files,
                rootfs=rootfs,
                accel=accel,
                results=results,
                cpus=wishes.cpus or CPUS,
                memory_mib=wishes.memory_mib or MEMORY_MIB,
                extra_cmdline=wishes.cmdline,
                devices=devices,
                dumps=dumps,
                interrupt=interrupt,
            )

        return another


def boot_seconds(kernel: Kernel, kind: AccelKind) -> float:
    """How long a guest may take to its agent's first word."""
    return _BOOT_S[kind] * (_DEBUG_FACTOR if kernel.flavour is Flavour.DEBUG else 1)


@contextmanager
def boot(
    files: KernelFiles,
    *,
    rootfs: Path,
    accel: Accel,
    results: Path,
    cpus: int = CPUS,
    memory_mib: int = MEMORY_MIB,
    extra_cmdline: Sequence[str] = (),
    devices: Sequence[Device] = (),
    dumps: bool = False,
    timeout_s: float | None = None,
    interrupt: int | None = None,
) -> Iterator[Guest]:
    """Boot a guest; it is gone when the block is left, however it is left.

    Its console, stray output, what a test printed and QEMU's words stay in `results` (console.log,
    stray.log, printed.log, qemu.log;
    console-2.log and so on for the next guest of one run; console-state.txt tells where the
    processors of a silent one stood). `devices` come beside those that every guest has.
    `timeout_s` is the time to the agent's first word, by default as `boot_seconds` says.
    Call it from a thread that lives as long as the guest: QEMU dies with the thread that started
    it (PR_SET_PDEATHSIG). Once the descriptor `interrupt` is readable, whoever waits for the guest
    gets a KeyboardInterrupt, as only a main thread does from a signal.

    Raises GuestLost when the guest does not come up or is not the one that was started,
    MissingTool, and LabError.
    """
    initramfs, modules = build_initramfs(files), build_modules_image(files)
    flavoured = _DEBUG_CMDLINE if files.kernel.flavour is Flavour.DEBUG else ()

    def start(cmdline: Sequence[str], entry: Entry) -> AbstractContextManager[Machine]:
        return started(
            accel=accel,
            kernel=image(files, entry),
            initramfs=initramfs,
            rootfs=rootfs,
            modules=modules,
            cmdline=(*cmdline, *flavoured, *extra_cmdline),
            results=results,
            cpus=cpus,
            memory_mib=memory_mib,
            devices=devices,
            dumps=dumps,
        )

    patience = boot_seconds(files.kernel, accel.kind) if timeout_s is None else timeout_s

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
    dumps: bool = False,
) -> Iterator[Machine]:
    """A running machine; it is gone when the block is left. Its logs stay in `results`.

    `devices` are what it has beside those that every guest needs.
    """
    with ExitStack() as stack:
        agent, its_agent = (stack.enter_context(one) for one in socket.socketpair())
        ours, its_monitor = (stack.enter_context(one) for one in socket.socketpair())
        console, stray, printed, words = new_logs(results)
        inherit = [its_agent, its_monitor]
        kept = None
        if dumps:
            waiting, its_waiting = socket.socketpair()
            inherit.append(stack.enter_context(its_waiting))
            devices = (*devices, CoreInfo(), Monitor(its_waiting.fileno(), "end"))
            kept = stack.enter_context(memory_at_end(waiting, end_of(console)))
        its = arch.here()
        parts: Sequence[Device] = (
            SerialConsole(console),
            PortBus(),
            SocketPort(PORT, its_agent.fileno()),
            FilePort(STRAY, stray),
            FilePort(PRINTED, printed, append=True),
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
        qemu = stack.enter_context(running(command, log=words, inherit=inherit))
        known = deaths(accel, cpus=cpus)
        yield Machine(
            process=qemu,
            console=Console(console),
            stray=stray,
            agent=agent,
            hypervisor=monitor.Monitor(ours, kept),
            printed=printed,
            deaths=known,
        )
