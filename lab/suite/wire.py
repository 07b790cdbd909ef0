# SPDX-License-Identifier: MIT
"""The conversation between the host's pytest and the guest's.

Each message is one JSON object with a running number `n` for its direction.  The agent frames and
checks the transport; the number here catches what the transport cannot know: a pytest process that
was forked by a test and speaks twice, or one that swallowed an answer.

Guest to host:  hello, collected, start, report, finish, trouble, done.
Host to guest:  welcome, run, stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Said(StrEnum):
    """What the guest's pytest says."""

    HELLO = "hello"
    COLLECTED = "collected"
    START = "start"
    REPORT = "report"
    FINISH = "finish"
    TROUBLE = "trouble"
    DONE = "done"


class Told(StrEnum):
    """What the host tells it."""

    WELCOME = "welcome"
    RUN = "run"
    STOP = "stop"


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

    def __init__(self, kinds: Mapping[StrEnum, Mapping[str, type]]) -> None:
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


FROM_GUEST: Mapping[StrEnum, Mapping[str, type]] = {
    Said.HELLO: dict.fromkeys(
        ("nonce", "release", "tree_sha256", "extension_sha256", "bytecode_sha256"), str
    ),
    Said.COLLECTED: {"ids": list, "errors": list},
    Said.START: {"id": str},
    Said.REPORT: {"id": str, "data": dict},
    Said.FINISH: {"id": str, "reports": int},
    Said.TROUBLE: {"text": str},
    Said.DONE: {"finished": int, "status": int},
}
TO_GUEST: Mapping[StrEnum, Mapping[str, type]] = {
    Told.WELCOME: {"expected": dict, "probe": dict, "programs": dict},
    Told.RUN: {"id": str},
    Told.STOP: {},
}
