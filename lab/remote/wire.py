# SPDX-License-Identifier: MIT
"""What passes between the host and a Python process in a guest, and the guest's end of it.

Each message is one JSON object, a line, with a running number `n` for its direction and a `type`.
It goes by a socket that the agent hands to the process it starts, so that nothing which is printed
can be taken for a message.  The agent frames and checks the transport; the number catches what the
transport cannot know: a process that was forked and speaks twice, or one that swallowed an answer.

A guest imports this: standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

CONTROL_VARIABLE = "LAB_CONTROL_FD"
"""Names the socket's descriptor to the process; see lab/vm/inguest/children.py."""
PRINTED_VARIABLE = "LAB_PRINTED"
"""Names the port's device to the process; see lab/vm/inguest/agent.py. Nothing where there is
none."""
FORKED_STATUS = 97
"""With which a forked process ends that would speak for its parent."""
TROUBLE, DONE = "trouble", "done"
"""Types of message that any process may say: that it broke, with a `text`; and its last word."""

Kinds = Mapping[StrEnum, Mapping[str, type]]
"""By type of message, the fields it has."""


class BrokenWire(Exception):
    """The other side said something that cannot be true; the message says what."""


class Numberer:
    """Numbers outgoing messages."""

    def __init__(self) -> None:
        self._next = 0

    def message(self, kind: StrEnum, **fields: Any) -> dict[str, Any]:
        """A message of this kind with its number."""
        message = {"n": self._next, "type": kind.value, **fields}
        self._next += 1
        return message


class Checker:
    """Checks incoming messages: number, kind and the presence of the fields a kind has."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = {kind.value: fields for kind, fields in kinds.items()}
        self._next = 0

    def check(self, message: Mapping[str, Any]) -> str:
        """The message's kind. Raises BrokenWire with a sentence."""
        if (number := message.get("n")) != self._next or type(number) is not int:
            raise BrokenWire(f"message number {message.get('n')!r} where {self._next} was due")
        self._next += 1
        kind = message.get("type")
        if not isinstance(kind, str) or kind not in self._kinds:
            raise BrokenWire(f"a message of unknown type {kind!r}")
        for name, wanted in self._kinds[kind].items():
            if type(message.get(name)) is not wanted:  # JSON's true is no number
                raise BrokenWire(f"a {kind!r} message whose {name!r} is {message.get(name)!r}")
        return kind


class Control:
    """The guest's end. Without a descriptor, where a person tries the program, messages go to
    standard output and nothing is heard."""

    def __init__(self, descriptor: int | None, kinds: Kinds) -> None:
        """`kinds` are those of the host."""
        self._socket: socket.socket | None = None
        if descriptor is not None:
            # What the process starts must not be able to speak for it.
            os.set_inheritable(descriptor, False)
            self._socket = socket.socket(fileno=descriptor)
            self._lines = self._socket.makefile("rb")
        self._owner = os.getpid()
        self._held = b""
        self._out = Numberer()
        self._in = Checker(kinds)

    @classmethod
    def inherited(cls, kinds: Kinds) -> Control:
        """The one that this process was started with. Nobody finds it a second time: what the
        process starts does not inherit it."""
        descriptor = os.environ.pop(CONTROL_VARIABLE, "")
        return cls(int(descriptor) if descriptor else None, kinds)

    def say(self, kind: StrEnum, **fields: Any) -> None:
        """Send one message, behind those that are held back."""
        self.hold(kind, **fields)
        if self._socket is None:
            sys.stdout.buffer.write(self._held)
            sys.stdout.flush()
        else:
            self._socket.sendall(self._held)
        self._held = b""

    def hold(self, kind: StrEnum, **fields: Any) -> None:
        """Send one message together with the next: each sending is a round through the agent and
        the host, which takes an emulated processor longer than most tests' teardown."""
        self._only_owner()
        message = self._out.message(kind, **fields)
        # A report may carry user properties that JSON does not know: their repr is better than
        # none, and a message that cannot be sent would lose the verdict.
        self._held += json.dumps(message, default=repr).encode() + b"\n"

    def listen(self) -> tuple[str, dict[str, Any]]:
        """The host's next message and its kind. Raises EOFError when the host is gone."""
        self._only_owner()
        line = b"" if self._socket is None else self._lines.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the host closed the control socket")
        message: dict[str, Any] = json.loads(line)
        return self._in.check(message), message

    def close(self) -> None:
        """Nothing more is said or heard."""
        if self._socket is not None:
            self._lines.close()
            self._socket.close()

    def _only_owner(self) -> None:
        # A child that a test forked and forgot returns into its parent's code here.
        if os.getpid() != self._owner:
            os._exit(FORKED_STATUS)
