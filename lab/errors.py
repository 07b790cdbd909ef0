# SPDX-License-Identifier: MIT
"""What can go wrong in the lab, as sentences a person can act on.

Every error carries the exit code its cause deserves (see `lab.suite`): 2 for a request that
cannot be meant, 3 for everything that kept the lab from proving anything.
"""

from __future__ import annotations

from typing import ClassVar

COMMAND = "python -m lab" if __package__ == "lab" else "lab"
"""How the lab is called, for sentences: from its own repository's folder, or installed."""


class LabError(Exception):
    """The lab could not prove anything; `hint` names a way out, if there is one."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(LabError):
    """The request itself is wrong: an unknown kernel, an option out of range."""

    exit_code: ClassVar[int] = 2


class KernelUnavailable(LabError):
    """No source could give this kernel; the message says what was tried and what is cached."""


class MissingTool(LabError):
    """A program of the host is not installed; the message names it, the hint its package."""


class GuestLost(LabError):
    """The guest died, fell silent or lied; nothing it said after that counts.

    `reason` is one sentence, `console_tail` the last lines its kernel wrote. `excuse` says by what
    fault of the emulator it died, if that is known; what its kernel said then is not its own.
    """

    def __init__(
        self, reason: str, *, console_tail: str = "", hint: str = "", excuse: str = ""
    ) -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason
        self.console_tail = console_tail
        self.excuse = excuse


class NoSignOfLife(GuestLost):
    """The guest was lost before one byte came from it: perhaps it cannot be entered that way."""
