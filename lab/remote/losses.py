# SPDX-License-Identifier: MIT
"""How a Python process in a guest can fail its host: it is gone, or it cannot be believed."""

from __future__ import annotations

from ..errors import GuestLost, LabError


class RunOver(LabError):
    """Nothing more can be proved in this run: the guest, or what runs in it, said what cannot be
    true or did not say what was due. The message is the cause, with the log's tail."""

    def __init__(self, message: str, *, tail: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tail = tail


class Silent(RunOver):
    """What was due did not come: nothing that was said is a lie."""


class Gone(Exception):
    """The process ended before it was told to; `guest_too` if the guest did. `killed` if it was
    killed and nobody of us did that."""

    def __init__(
        self, why: str, *, guest_too: bool = False, tail: str = "", killed: bool = False
    ) -> None:
        super().__init__(why)
        self.guest_too = guest_too
        self.tail = tail
        self.killed = killed

    @classmethod
    def with_guest(cls, lost: GuestLost) -> Gone:
        """The guest is gone, and the process with it."""
        return cls(lost.reason, guest_too=True, tail=lost.console_tail)
