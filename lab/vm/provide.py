# SPDX-License-Identifier: MIT
"""What of a guest's wishes is seen to on the kernel's files, before it boots, and inside, once it
is up: modules and sysctls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import LabError, UsageError
from ..kernels import KernelFiles
from ..wishes import Wishes
from .events import Completed
from .guest import Guest

PATIENCE_S = 60.0
"""How long a module may take to load where the guest is as fast as this machine."""
FOR_DUMPS = Wishes(modules=("qemu_fw_cfg",))
"""By which the kernel tells QEMU where its VMCOREINFO is."""
_SET = """
[ -e "/proc/sys/$1" ] || { echo "it has no such sysctl" >&2; exit 1; }
printf %s "$2" >"/proc/sys/$1"
"""


def check(files: KernelFiles, wishes: Wishes) -> None:
    """Raise UsageError if this kernel has not the modules that are wished for."""
    there = set(_modules(files))
    release = files.kernel.release
    for name in wishes.modules:
        if _plain(name) not in there:
            raise UsageError(
                f"{release} has no module {name}, neither built in nor among its modules",
                hint="the name is that of its file without .ko",
            )


def check_dumps(files: KernelFiles) -> None:
    """Raise UsageError if drgn could make nothing of this kernel's memory."""
    try:
        check(files, FOR_DUMPS)
    except UsageError as error:
        raise UsageError(
            f"--dump: {error.message}: drgn would not find this kernel's VMCOREINFO",
            hint="take a kernel with CONFIG_FW_CFG_SYSFS, as Debian's have it; of your own build "
            "it: --set FW_CFG_SYSFS=m",
        ) from error


def _modules(files: KernelFiles) -> Iterator[str]:
    for index, separator in (("modules.dep", ":"), ("modules.builtin", "\n")):
        try:
            lines = (files.modules / index).read_text().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            yield _plain(line.partition(separator)[0].rpartition("/")[2].partition(".ko")[0])


def _plain(module: str) -> str:
    """A module's name as the kernel compares it."""
    return module.replace("-", "_")


def settle(guest: Guest, wishes: Wishes) -> None:
    """Load the modules, set the sysctls, and see that the kernel took the words on its command
    line. Raises LabError that names what cannot be had, and GuestLost."""
    release = guest.kernel.release
    for name in wishes.modules:
        done = _run(guest, ["modprobe", name], f"load the module {name}")
        if done.status != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise LabError(f"{release} does not load the module {name}: {said}")
    for name, value in wishes.sysctl:
        path = name if "/" in name else name.replace(".", "/")
        words = ["/bin/sh", "-c", _SET, "sh", path, value]
        done = _run(guest, words, f"take the sysctl {name}={value}")
        if done.status != 0:
            said = done.stderr.decode(errors="replace").strip()
            why = (said.splitlines() or [""])[-1].removeprefix("sh: ") or f"status {done.status}"
            raise LabError(f"{release} does not take the sysctl {name}={value}: {why}")
    if wishes.cmdline:
        said_back = _run(guest, ["cat", "/proc/cmdline"], "tell its command line").stdout.decode()
        if missing := [word for word in wishes.cmdline if word not in said_back]:
            raise LabError(
                f"{release} cut its command line, {len(said_back)} bytes, before {missing[0]!r}",
                hint="append fewer words",
            )


def _run(guest: Guest, argv: Sequence[str], what: str) -> Completed:
    """Run a command there that is to do `what`. Raises LabError when it does not end."""
    limit = PATIENCE_S * max(1.0, guest.slowdown)
    try:
        return guest.run(argv, timeout_s=limit)
    except TimeoutError as error:
        raise LabError(f"{guest.kernel.release} does not {what} within {limit:.0f} s") from error
