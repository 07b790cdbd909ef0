# SPDX-License-Identifier: MIT
"""Which accelerator runs a guest, and why.

KVM counts only when this QEMU with this machine type, CPU model and kernel has reached the first
line of our init within five seconds. Opening /dev/kvm proves nothing, and neither does running a
few instructions: on a nested, paravirtual KVM a bare KVM_RUN of `hlt` succeeds while every stock
kernel aborts QEMU or hangs.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from .. import arch, cache
from ..errors import UsageError
from ..kernels import KernelFiles
from . import qemu
from .console import Console
from .devices import Boot, SerialConsole
from .entry import image, other_than, remember, remembered
from .initramfs import build_initramfs
from .processor import COMMON, Accel, AccelKind, processor_arguments

FIRST_LINE_S = 5.0
_CHOICES = ("auto", "kvm", "tcg")


def choose_accel(files: KernelFiles, *, results: Path | None = None) -> Accel:
    """KVM if it demonstrably boots this kernel, else TCG; `reason` says why.

    A verdict on KVM is kept for as long as the host is not restarted and neither QEMU nor the
    kernel changes. `$LAB_ACCEL` (auto, kvm, tcg) overrides: "kvm" takes KVM untried. The probe's
    console is kept in `results`. Raises MissingTool, UsageError.
    """
    asked = os.environ.get("LAB_ACCEL", "auto")
    if asked not in _CHOICES:
        raise UsageError(f"LAB_ACCEL is {asked!r}", hint=f"one of {', '.join(_CHOICES)}")
    if asked == "kvm":
        return _kvm("LAB_ACCEL=kvm, untried")
    if asked == "tcg":
        return _tcg("LAB_ACCEL=tcg")
    refused = _kvm_is_out_of_reach() or _kvm_fails(files, results)
    if refused:
        return _tcg(refused)
    return _kvm(f"this kernel reached its init within {FIRST_LINE_S:g} s")


def _kvm(reason: str) -> Accel:
    its = arch.here()
    return Accel(AccelKind.KVM, its.kvm_cpu, its.machine, reason)


def _tcg(reason: str) -> Accel:
    its = arch.here()
    return Accel(AccelKind.TCG, its.tcg_cpu(qemu.version()), its.machine, reason)


def _kvm_is_out_of_reach() -> str:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "no /dev/kvm"
    except OSError as error:
        return f"/dev/kvm does not open: {error.strerror}"
    return ""


def _kvm_fails(files: KernelFiles, results: Path | None) -> str:
    """Why KVM does not boot this kernel, empty if it does."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    facts = {
        "boot_id": boot_id,
        "qemu": qemu.version(),
        "machine": arch.here().machine,
        "cpu": arch.here().kvm_cpu,
        "kernel": files.vmlinux.parent.name,
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    place = cache.root() / "accel" / f"{boot_id}-{key}.json"
    with cache.locked("accel"):
        try:
            return str(json.loads(place.read_text())["refused"])
        except (FileNotFoundError, ValueError, KeyError):
            pass
        refused, certain = _try_kvm(files, results)
        if not certain:
            return refused
        for stale in place.parent.glob("*.json"):
            if not stale.name.startswith(boot_id):
                stale.unlink(missing_ok=True)
        with cache.scratch() as directory:
            made = directory / "verdict.json"
            made.write_text(json.dumps({**facts, "refused": refused}))
            cache.publish(made, place)
    return refused


_MOST_WAITING = 0.2
"""Of its time QEMU may have waited for a processor, so that silence is the kernel's and not this
busy host's."""


def _try_kvm(files: KernelFiles, results: Path | None) -> tuple[str, bool]:
    """Why KVM does not boot this kernel, empty if it does; and whether another try would say the
    same."""
    accel = _kvm("to be proved")
    usual = remembered(files, accel)
    refused, certain, silent = _enter(files, results, accel, usual)
    if silent and (other := other_than(usual)) is not None:
        again, certain_again, _ = _enter(files, results, accel, other)
        if not again:
            remember(files, accel, other)
            return "", True
        certain = certain and certain_again
    return refused, certain


def _enter(
    files: KernelFiles, results: Path | None, accel: Accel, entry: arch.Entry
) -> tuple[str, bool, bool]:
    """As `_try_kvm` one way into the kernel, and whether not one byte came from it."""
    with tempfile.TemporaryDirectory(prefix="lab-kvm-") as temporary:
        directory = results or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        console = Console(directory / "kvm-probe-console.log")
        log = directory / "kvm-probe-qemu.log"
        command = [
            str(qemu.program()),
            *COMMON,
            *processor_arguments(accel, cpus=1),
            *("-m", "256M"),
            *SerialConsole(console.path).arguments(),
            *Boot(
                image(files, entry),
                build_initramfs(files),
                (f"console={arch.here().console}", "panic=-1", "lab.probe=1"),
            ).arguments(),
        ]
        with qemu.running(command, log=log) as machine:
            ended = machine.ended(FIRST_LINE_S)
            if b"lab: init reached" in console.read():
                return "", True, False
            if ended:
                how = machine.how_it_ended()
                return f"KVM is there but cannot boot this kernel: {how}", True, False
            silent = not console.read(raw=True)
            waited = machine.seconds_without_processor()
            why = f"KVM is there but this kernel shows no life within {FIRST_LINE_S:g} s"
            if waited <= FIRST_LINE_S * _MOST_WAITING:
                return why, True, silent
            return f"{why}, {waited:.1f} s of which it waited for a processor", False, silent
