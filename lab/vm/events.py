# SPDX-License-Identifier: MIT
"""What a process in a guest can tell the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Stream(StrEnum):
    """Where a piece of output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Control:
    """One JSON object the process wrote as a line on its control socket (LAB_CONTROL_FD)."""

    obj: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of the process's output, cut anywhere."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """The process and everything it started are gone, all its output has been delivered.

    `status` is the exit status, or minus the signal that killed it.
    """

    status: int


Event = Control | Output | Exited


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ran to its end in a guest; `status` as in `Exited`."""

    status: int
    stdout: bytes
    stderr: bytes
