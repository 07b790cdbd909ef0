# SPDX-License-Identifier: MIT
"""What executes a guest: accelerator, machine type and processors, as QEMU is told them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .. import arch
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
    if accel.kind is AccelKind.TCG:
        option += arch.here().tcg_options(version(), cpus)
    return (
        *("-machine", accel.machine),
        *("-accel", option),
        *("-cpu", accel.cpu),
        *("-smp", str(cpus)),
    )
