# SPDX-License-Identifier: MIT
"""What executes a guest: accelerator, machine type and processors, as QEMU is told them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .qemu import version

COMMON = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
"""What every guest is started with."""


class AccelKind(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Accel:
    """An accelerator with the machine and CPU model proved to work with it."""

    kind: AccelKind
    cpu: str
    machine: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"


def processor_arguments(accel: Accel, *, cpus: int) -> Sequence[str]:
    """QEMU's arguments for accelerator, machine type and processors."""
    option = str(accel.kind)
    if accel.kind is AccelKind.TCG and version() < (10, 0, 0) and cpus > 1:
        # Multi-threaded TCG of QEMU 7.2 runs code another CPU is just patching: 3 of 50 boots of
        # 7.1 and 7.2 kernels died with "Oops: int3", none of 16 with thread=single.
        option += ",thread=single"
    return (
        *("-machine", accel.machine),
        *("-accel", option),
        *("-cpu", accel.cpu),
        *("-smp", str(cpus)),
    )
