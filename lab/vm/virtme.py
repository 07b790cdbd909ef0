# SPDX-License-Identifier: MIT
"""virtme-ng as a launcher: this machine's own files as the guest's root, read-only.

For looking around and for programs that need what is installed here; verdicts come from `boot`.
Tried with virtme-ng 1.42, which takes for granted what a host of it may lack:

- KVM counts for it when /dev/kvm opens; the lab's own proof decides.
- The exit status comes back only through /dev/virtio-ports/*, which are udev's work, and is 255 for
  a lost guest and for a command that a signal killed alike. Where this machine has no udev a
  stand-in makes the links (0.1 s instead of 3 to 5), and the status travels in a file.
- 9p is what its root comes over here, so it takes a kernel of Debian's full flavour; virtiofs
  would need a virtiofsd newer than Debian 12's, which rejects its options.
- It opens what standard output leads to with O_TRUNC, so it only ever gets pipes.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import tools
from lab.errors import GuestLost, MissingTool
from lab.kernels import KernelFiles

from .processor import Accel, AccelKind

_UDEV = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/usr/sbin/udevd")
_STAND_IN = """\
#!/bin/sh
# Stands in for udev: the links by name, of which virtme-ng needs virtio's ports.
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" && ln -sf "../${port##*/}" "/dev/virtio-ports/$name"
done
exit 0
"""
_COMMAND = """\
: >{here}/started
cd {cwd} || exit
{command}
echo $? >{here}/status.new
mv {here}/status.new {here}/status
"""
# "$@" is virtme-ng's command line. The mounts are seen by it and its QEMU alone.
_PREPARE = """\
if [ -n "$LAB_STAND_IN" ]; then
    mount -t overlay -o "lowerdir=$LAB_STAND_IN:/usr/lib/systemd" overlay /usr/lib/systemd || exit
fi
exec "$@"
"""
BOOT_S = 180.0
"""How long a guest may take to its command, in seconds; 25 on a busy machine under TCG."""


def program() -> Path:
    """Where vng is. Raises MissingTool."""
    beside = Path(sys.executable).with_name("vng")
    if beside.exists():
        return beside
    found = shutil.which("vng")
    if found is None:
        raise MissingTool("virtme-ng is not installed", hint="make setup, or pip install virtme-ng")
    return Path(found)


def run(
    files: KernelFiles,
    argv: Sequence[str],
    *,
    accel: Accel,
    cwd: Path,
    cpus: int = 1,
    memory_mib: int = 1024,
    env: Mapping[str, str],
    timeout_s: float | None = None,
) -> int:
    """Run a command in a guest with this process's streams; its exit status, 128 + n for signal n.

    What is typed at a terminal does not reach it. Raises GuestLost when the command did not come
    to its end, TimeoutError after `timeout_s` seconds of it, MissingTool.
    """
    with _directory() as here:
        words = shlex.join(["env", *(f"{n}={v}" for n, v in env.items()), *argv] if env else argv)
        script = _COMMAND.format(
            here=shlex.quote(str(here)), cwd=shlex.quote(str(cwd)), command=f"( exec {words} )"
        )
        (here / "command").write_text(script)
        command = [
            *_command(files, accel, cpus=cpus, memory_mib=memory_mib),
            *(f"--rwdir={here}", "--", f"sh {here}/command"),
        ]
        code, tail = _attend(command, here, timeout_s)
        try:
            return int((here / "status").read_text())
        except (FileNotFoundError, ValueError):
            when = "before it was done" if (here / "started").exists() else "before it began"
            raise GuestLost(
                f"virtme-ng ended with status {code} and the command's is not known: the guest was"
                f" lost {when}",
                console_tail=tail,
            ) from None


def shell(files: KernelFiles, *, accel: Accel, cpus: int = 1, memory_mib: int = 1024) -> int:
    """An interactive shell on this process's own terminal; virtme-ng's exit status. Raises
    MissingTool."""
    with _directory() as here:
        command = _command(files, accel, cpus=cpus, memory_mib=memory_mib)
        done = subprocess.run(command, env=_environment(here), check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory that the guest shares, with the stand-in for udev if this machine has none."""
    with tempfile.TemporaryDirectory(prefix="lab-vng-") as temporary:
        here = Path(temporary)
        (here / "home").mkdir()
        if not any(Path(path).exists() for path in _UDEV):
            stand_in = here / "udev" / "systemd-udevd"
            stand_in.parent.mkdir()
            stand_in.write_text(_STAND_IN)
            stand_in.chmod(0o755)
        yield here


def _environment(here: Path) -> dict[str, str]:
    stand_in = here / "udev"
    return {
        **os.environ,
        "HOME": str(here / "home"),  # no settings of the user's, and none left there
        # vng finds virtme-run by PATH, and Debian's depmod is in sbin.
        "PATH": os.pathsep.join(
            (str(program().parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
        ),
        "LAB_STAND_IN": str(stand_in) if stand_in.exists() else "",
    }


def _command(files: KernelFiles, accel: Accel, *, cpus: int, memory_mib: int) -> list[str]:
    command = [
        *(str(tools.find("setpriv")), "--pdeathsig", "KILL"),
        # Mounts of its own for the stand-in; and processes of its own, so that whatever virtme-ng
        # started dies with it, and it with the run.
        *(str(tools.find("unshare")), "--mount", "--pid", "--mount-proc"),
        *("--fork", "--kill-child=KILL"),
        *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
        *("sh", "-c", _PREPARE, "sh"),
        *(str(program()), "--run", str(files.vmlinuz)),
        *("--force-9p", "--cpus", str(cpus), "--memory", f"{memory_mib}M"),
    ]
    if accel.kind is AccelKind.TCG:
        # Of two -cpu the later wins. QEMU 7.2 corrupts flags on cmpxchg16b; see lab.vm.accel.
        command += ["--disable-kvm", f"--qemu-opts=-cpu {accel.cpu}"]
    for word in ("mitigations=off", "cryptomgr.notests", "nokaslr", "audit=0"):
        command += ["--append", word]
    return command


def _attend(command: Sequence[str], here: Path, timeout_s: float | None) -> tuple[int, str]:
    """Run virtme-ng, passing its output on; its status and the last of what it said."""
    tail = bytearray()
    with subprocess.Popen(
        command,
        env=_environment(here),
        stdin=subprocess.DEVNULL if os.isatty(0) else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            targets = {process.stdout.fileno(): 1, process.stderr.fileno(): 2}
            begun = time.monotonic()
            limit, what = begun + BOOT_S, f"no command after {BOOT_S:g} s"
            started = False
            poll = select.poll()
            for source in targets:
                poll.register(source, select.POLLIN)
            while targets:
                if not started and (here / "started").exists():
                    started = True
                    limit = time.monotonic() + (timeout_s or float("inf"))
                    what = f"the command was not done after {timeout_s or 0:g} s"
                if time.monotonic() > limit:
                    if started:
                        raise TimeoutError(what)
                    raise GuestLost(f"virtme-ng: {what}", console_tail=_text(tail))
                for source, _ in poll.poll(200):
                    data = os.read(source, 1 << 16)
                    if not data:
                        poll.unregister(source)
                        del targets[source]
                        continue
                    tail += data
                    del tail[:-4000]
                    _write(targets[source], data)
        except BaseException:
            process.kill()
            raise
    return process.returncode, _text(tail)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _text(tail: bytearray) -> str:
    return "\n".join(tail.decode(errors="replace").splitlines()[-12:])
