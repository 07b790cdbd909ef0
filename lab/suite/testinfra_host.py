# SPDX-License-Identifier: MIT
"""A guest as pytest-testinfra sees it: a backend whose commands the guest's agent runs.

Tried with pytest-testinfra 10.2.
"""

from __future__ import annotations

import time
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from .. import tools
from ..errors import LabError
from ..vm import Guest
from ..vm.rootfs import PROGRAMS, shell

LEAST_S = 1.0


class GuestBackend(BaseBackend):  # type: ignore[misc]  # pytest-testinfra has no types
    """Runs commands in one guest, as root, by the shell of this machine's scripts."""

    NAME = "lab"

    def __init__(self, guest: Guest, deadline: float) -> None:
        """`deadline` is of time.monotonic(); no command runs longer."""
        super().__init__(guest.kernel.release)
        self.guest = guest
        self.asked = 0
        """How many commands the guest has run for this test."""
        self._deadline = deadline
        self._encoding = "utf-8"  # pid1 sets LANG=C.UTF-8

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a command to its end. Raises GuestLost, LabError, and TimeoutError when it is not
        done before the test has to be."""
        line = self.get_command(command, *args)
        left = max(LEAST_S, self._deadline - time.monotonic())
        done = self.guest.run([shell(), "-c", line], timeout_s=left)
        self.asked += 1
        if b"nc: invalid option -- 'z'" in done.stderr:
            # Its status is the one of a port that is closed.
            raise LabError(f"busybox's nc knows no -z, so this asks for nothing: {line}")
        # As a shell tells of a signal: a status is never below 0.
        status = done.status if done.status >= 0 else 128 - done.status
        return self.result(status, line.encode(), done.stdout, done.stderr)


def host_of(guest: Guest, deadline: float) -> tuple[GuestBackend, Any]:
    """The backend for one test, and the `Host` over it. Raises MissingTool for a program that a
    guest has of this machine, and this machine has not."""
    for program in PROGRAMS:
        tools.find(program)
    backend = GuestBackend(guest, deadline)
    host = Host(backend)
    backend.set_host(host)
    return backend, host
