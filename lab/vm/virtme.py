# SPDX-License-Identifier: MIT
"""virtme-ng as a launcher: this machine's own files as the guest's root, read-only.

What it runs in its guest is the lab's agent, so that everything else (identity, streams, statuses,
the kernel's log, how a guest is lost) is as in any other guest. Tried with virtme-ng 1.42, which
takes for granted what a host of it may lack:

- KVM counts for it when /dev/kvm opens; the lab's own proof decides.
- A command's exit status comes back only through /dev/virtio-ports/*, which are udev's work, and
  is 255 for a lost guest and for a command that a signal killed alike. The agent finds its port
  without udev and tells statuses itself.
- 9p is what its root comes over here, so it takes a kernel of Debian's full flavour; virtiofs
  would need a virtiofsd newer than Debian 12's, which rejects its options.
- It opens what standard output leads to with O_TRUNC, so it only ever gets pipes.
- The serial port is its own; the kernel's log comes over a console on virtio.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from .. import arch, kernels, tools
from ..errors import GuestLost, LabError, MissingTool
from ..kernels import Flavour, Kernel, KernelFiles
from ..wishes import Wishes
from . import launcher
from .console import Console
from .devices import (
    CoreInfo,
    Device,
    FilePort,
    Monitor,
    PortBus,
    PortConsole,
    SocketPort,
    wished,
)
from .emulator import deaths
from .guest import Guest
from .inguest import agent
from .introduction import introduced
from .machine import CMDLINE, Machine, new_logs
from .memory import end_of, memory_at_end
from .monitor import Monitor as MonitorPort
from .processor import Accel, AccelKind
from .qemu import Qemu, running

BOOT_S = 180.0
"""How long a guest may take to its agent's first word, in seconds; 25 on a busy machine under
TCG."""
MEMORY_MIB = 1024
"""What a guest has if nothing else is wished for."""
_CONSOLE = ("console=hvc0",)
_LONGEST_NAME = 107
"""Bytes of a socket's name in the file system, without the NUL behind it (unix(7))."""
_WRITABLE = ("/etc", "/home", "/lib", "/opt", "/srv", "/tmp", "/usr", "/var")
"""Where virtme-ng itself puts an overlay over the host's files (1.42)."""
# The agent's environment is that of `inguest/pid1`, not what virtme-ng took over from the host.
_AGENT = "env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root"
# Two things at once: QEMU gets pipes, and its own status is the shell's.
_PREPARE = 'set -o pipefail; "$@" 2>&1 | cat'


def program() -> Path:
    """Where vng is. Raises MissingTool."""
    beside = Path(sys.executable).with_name("vng")
    if beside.exists():
        return beside
    found = shutil.which("vng")
    if found is None:
        raise MissingTool("virtme-ng is not installed", hint="make setup, or pip install virtme-ng")
    return Path(found)


def with_9p(kernel: Kernel) -> Kernel:
    """The same release as a kernel that virtme-ng can boot here: Debian's cloud flavour has not
    the file system its root comes over. Raises UsageError, KernelUnavailable."""
    if kernel.flavour is not Flavour.CLOUD:
        return kernel
    return kernels.resolve(kernel.package, flavour=Flavour.FULL)


class VirtmeNg:
    """See `Launcher`."""

    name = "vng"
    words = "by virtme-ng, with this machine's files as root"
    has_our_files = True

    def bootable(self, kernel: Kernel) -> Kernel:
        """See `Launcher`: one of the full flavour."""
        program()  # before a download of a hundred megabytes, not after
        return with_9p(kernel)

    def prepare(
        self,
        files: KernelFiles,
        *,
        accel: Accel,
        wishes: Wishes,
        writable: Sequence[Path] = (),
        dumps: bool = False,
    ) -> launcher.Boot:
        """See `Launcher`."""
        devices = wished(wishes.devices)

        def another(
            results: Path, *, interrupt: int | None = None
        ) -> AbstractContextManager[Guest]:
            return boot(
                files,
                accel=accel,
                results=results,
                cpus=wishes.cpus or 1,
                memory_mib=wishes.memory_mib or MEMORY_MIB,
                extra_cmdline=wishes.cmdline,
                devices=devices,
                writable=writable,
                dumps=dumps,
                interrupt=interrupt,
            )

        return another


@contextmanager
def boot(
    files: KernelFiles,
    *,
    accel: Accel,
    results: Path,
    cpus: int = 1,
    memory_mib: int = MEMORY_MIB,
    extra_cmdline: Sequence[str] = (),
    devices: Sequence[Device] = (),
    writable: Sequence[Path] = (),
    dumps: bool = False,
    timeout_s: float = BOOT_S,
    interrupt: int | None = None,
) -> Iterator[Guest]:
    """Boot a guest whose root is this machine's, read-only; it is gone when the block is left.

    What it writes below the directories `writable`, and below those that virtme-ng itself makes
    so (/tmp, /usr, /home and the like), is gone with it. Logs and `interrupt` are as those of
    `lab.vm.boot`.

    Raises GuestLost, MissingTool, and LabError.
    """

    def start(words: Sequence[str]) -> AbstractContextManager[Machine]:
        return _started(
            files,
            (*_CONSOLE, *arch.here().cmdline, *CMDLINE, *words, *extra_cmdline),
            accel=accel,
            results=results.absolute(),
            cpus=cpus,
            memory_mib=memory_mib,
            devices=devices,
            writable=writable,
            dumps=dumps,
            timeout_s=timeout_s,
            interrupt=interrupt,
        )

    with introduced(files, start, accel=accel, timeout_s=timeout_s, interrupt=interrupt) as guest:
        yield guest


@contextmanager
def _started(
    files: KernelFiles,
    cmdline: Sequence[str],
    *,
    accel: Accel,
    results: Path,
    cpus: int,
    memory_mib: int,
    devices: Sequence[Device],
    writable: Sequence[Path],
    dumps: bool,
    timeout_s: float,
    interrupt: int | None,
) -> Iterator[Machine]:
    with ExitStack() as stack:
        here = Path(stack.enter_context(_short_directory()))
        (here / "home").mkdir()
        console, stray, printed, words = new_logs(results)
        names = ["agent", "monitor", *["end"] * dumps]
        doors = [stack.enter_context(_listening(here / name)) for name in names]
        parts: Sequence[Device] = (
            PortBus(),
            PortConsole(console),
            SocketPort(agent.PORT, here / "agent"),
            FilePort(agent.STRAY, stray),
            FilePort(agent.PRINTED, printed, append=True),
            Monitor(here / "monitor"),
            *((CoreInfo(), Monitor(here / "end", "end")) if dumps else ()),
            *devices,
        )
        qemu_options = [word for device in parts for word in device.arguments()]
        if accel.kind is AccelKind.TCG:
            # Of two -cpu the later wins; why not virtme-ng's own is in lab.arch.
            qemu_options += ["-cpu", accel.cpu]
        command = [
            # Processes of their own, so that whatever virtme-ng started dies with it.
            *(str(tools.find("unshare")), "--mount", "--pid", "--mount-proc"),
            *("--fork", "--kill-child=KILL"),
            *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
            *(str(tools.find("bash")), "-c", _PREPARE, "bash"),
            *(str(program()), "--run", str(files.vmlinuz)),
            *("--force-9p", "--cpus", str(cpus), "--memory", f"{memory_mib}M"),
            *(() if accel.kind is AccelKind.KVM else ("--disable-kvm",)),
            *(f"--overlay-rwdir={path}" for path in _overlaid(writable)),
            *(word for one in cmdline for word in ("--append", one)),
            f"--qemu-opts={shlex.join(qemu_options)}",
            *("--", f"exec {_AGENT} {shlex.join(_agent())}"),
        ]
        env = _environment(here / "home")
        qemu = stack.enter_context(running(command, log=words, env=env))
        ours = [
            stack.enter_context(_caller(door, qemu, console, timeout_s, interrupt))
            for door in doors
        ]
        known = deaths(accel, cpus=cpus)
        kept = stack.enter_context(memory_at_end(ours[2], end_of(console))) if dumps else None
        yield Machine(
            process=qemu,
            console=Console(console),
            stray=stray,
            agent=ours[0],
            hypervisor=MonitorPort(ours[1], kept),
            printed=printed,
            deaths=known,
        )


def _agent() -> Sequence[str]:
    # This very Python and the agent's own file: the guest sees both at the host's paths.
    return (
        sys.executable,
        "-I",
        "-S",
        "-B",
        str(Path(agent.__file__).absolute().with_name("start.py")),
    )


def _overlaid(writable: Sequence[Path]) -> Iterator[Path]:
    for path in writable:
        if not any(path.is_relative_to(top) for top in _WRITABLE):
            yield path


def _environment(home: Path) -> Mapping[str, str]:
    return {
        **os.environ,
        "HOME": str(home),  # no settings of the user's, and none left there
        # vng finds virtme-run by PATH, and Debian's depmod is in sbin.
        "PATH": os.pathsep.join(
            (str(program().parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
        ),
    }


def _short_directory() -> tempfile.TemporaryDirectory[str]:
    """A private directory whose sockets have names that the kernel takes: 107 bytes at most
    (unix(7)). That of $TMPDIR is passed over when it is too long. Raises LabError."""
    longest = len(os.fsencode(tempfile.gettempdir())) + len("/lab-vng-XXXXXXXX/monitor")
    try:
        return tempfile.TemporaryDirectory(
            prefix="lab-vng-", dir=None if longest <= _LONGEST_NAME else "/tmp"
        )
    except OSError as error:
        raise LabError(
            f"no directory for sockets can be made in /tmp: {error.strerror}",
            hint="set TMPDIR to a directory with a short name",
        ) from error


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that the QEMU to come connects to: virtme-ng hands no descriptor on."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(1)
        yield door


def _caller(
    door: socket.socket, qemu: Qemu, console: Path, timeout_s: float, interrupt: int | None
) -> socket.socket:
    """QEMU's end of a port. Raises GuestLost when it ends or waits before it has connected."""
    poll = select.poll()
    for descriptor in (door.fileno(), qemu.pidfd, interrupt):
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
    if interrupt in ready:
        raise KeyboardInterrupt
    if door.fileno() in ready:
        return door.accept()[0]
    why = qemu.how_it_ended() if ready else f"no QEMU within {timeout_s:g} s"
    raise GuestLost(f"virtme-ng started no guest: {why}", console_tail=Console(console).tail())
