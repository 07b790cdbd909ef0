# SPDX-License-Identifier: MIT
"""Which accelerator runs a guest, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.kernels import KernelFiles


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


def choose_accel(files: KernelFiles, *, results: Path | None = None) -> Accel:
    """KVM if it demonstrably boots this kernel, else TCG; `reason` says why."""
    raise NotImplementedError
