# SPDX-License-Identifier: MIT
"""The host's side of the conversation with an agent: requests, answers, and events of processes.

It trusts nothing: an answer nobody asked for, an event of a process that never was or has ended,
a second exit, all end the guest.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import GuestLost, LabError
from .channel import Channel, ChannelClosed, FrameError
from .events import Control, Event, Exited, Output, Stream
from .inguest.frames import to_bytes

_LONGEST_LINE = 64 << 20
_MOST_WAITING = 256 << 20
"""Bytes of one process nobody fetched; a process that never stops talking ends its guest."""
ANSWER_S = 60.0
"""How long an agent may take to answer when the machine is as fast as this one, in seconds."""


class Inbox:
    """What has arrived from one process and was not fetched yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ended = False
        self.waiting = 0
        """Bytes in line."""
        self._events: deque[tuple[Event, int]] = deque()
        self._line = bytearray()

    def add(self, event: Event, size: int) -> None:
        """Put an event in line."""
        self._events.append((event, size))
        self.waiting += size

    def take(self) -> Event | None:
        """The next event in line, if there is one."""
        if not self._events:
            return None
        event, size = self._events.popleft()
        self.waiting -= size
        return event

    def control(self, data: bytes) -> str:
        """Take bytes of its control socket; returns what is wrong with them, empty if nothing."""
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        if len(self._line) > _LONGEST_LINE:
            return f"wrote a control line of more than {_LONGEST_LINE} bytes"
        for line in lines:
            try:
                obj = json.loads(line)
            except ValueError:
                obj = None
            if not isinstance(obj, dict):
                return f"wrote a control line that is no JSON object: {bytes(line[:80])!r}"
            self.add(Control(obj), len(line))
        return ""


class Link:
    """A conversation with one agent. `explain` turns a cause into the GuestLost to raise."""

    def __init__(self, channel: Channel, explain: Callable[[str], GuestLost]) -> None:
        self._channel = channel
        self._explain = explain
        self._asked = 0
        self._inboxes: dict[int, Inbox] = {}
        self._lost: GuestLost | None = None

    def hello(
        self, *, deadline: float, within_s: float, hopeless: Callable[[], str] = lambda: ""
    ) -> Mapping[str, Any]:
        """The agent's first word. Raises GuestLost when there is none by `deadline`, or as soon as
        `hopeless`, asked once a second, says why there will be none."""
        silent = f"the agent did not speak within {within_s:g} s"
        while True:
            soon = min(deadline, time.monotonic() + 1.0)
            try:
                message = self._next(soon, silent if soon == deadline else "")
                break
            except TimeoutError:
                if why := hopeless():
                    self.lose(why)
        if message.get("event") != "hello":
            self.lose(f"the agent's first word was {_short(message)}, not hello")
        return message

    def call(self, op: str, *, timeout_s: float = ANSWER_S, **arguments: Any) -> Mapping[str, Any]:
        """Ask the agent for something and return its answer.

        Raises LabError when the agent says it cannot, GuestLost when it says nothing in time.
        """
        self.check()
        deadline = time.monotonic() + timeout_s
        self._asked += 1
        asked = self._asked
        silent = f"the agent did not answer {op} within {timeout_s:g} s"
        try:
            self._channel.send({"id": asked, "op": op, **arguments}, deadline=deadline)
        except ValueError as error:
            raise LabError(f"{op} is too much for one request: {error}") from error
        except TimeoutError:
            self.lose(silent)
        except (ChannelClosed, FrameError) as error:
            self._fail(error)
        while True:
            message = self._next(deadline, silent)
            if "re" not in message:
                self._event(message)
                continue
            if message["re"] != asked:
                self.lose(f"the agent answered request {message['re']!r}, asked was {asked}")
            if "error" in message:
                raise LabError(f"the guest's agent: {message['error']}")
            return message

    def open(self, number: int) -> Inbox:
        """The inbox of a process about to be started."""
        return self._inboxes.setdefault(number, Inbox(number))

    def drop(self, number: int) -> None:
        """Forget a process that could not be started."""
        del self._inboxes[number]

    def event(self, inbox: Inbox, timeout_s: float) -> Event:
        """The next event of a process. Raises TimeoutError, GuestLost."""
        deadline = time.monotonic() + timeout_s
        while (event := inbox.take()) is None:
            self.check()
            if inbox.ended:
                raise LabError(f"process {inbox.number} has ended; there is nothing to wait for")
            self._event(self._next(deadline, ""))
        return event

    def wait(self, inbox: Inbox, others: Sequence[int], timeout_s: float) -> set[int]:
        """Wait as `Channel.wait` does, unless an event is in line already."""
        return (
            set()
            if inbox.waiting or inbox.ended
            else self._channel.wait(others, timeout_s=timeout_s)
        )

    def ended(self, timeout_s: float) -> bool:
        """As `Channel.ended`; at once if this guest is given up."""
        return self._lost is not None or self._channel.ended(timeout_s)

    def check(self) -> None:
        """Raise again what this guest was lost to, if it was."""
        if self._lost is not None:
            raise self._lost

    def _next(self, deadline: float, silent: str) -> dict[str, Any]:
        try:
            return self._channel.receive(deadline=deadline)
        except TimeoutError:
            if silent:
                self.lose(silent)
            raise TimeoutError("nothing came from the process in time") from None
        except (ChannelClosed, FrameError) as error:
            self._fail(error)

    def _event(self, message: Mapping[str, Any]) -> None:
        kind, number = message.get("event"), message.get("process")
        inbox = self._inboxes.get(number) if isinstance(number, int) else None
        if inbox is None:
            self.lose(f"the agent told of a process nobody started: {_short(message)}")
        if inbox.ended:
            self.lose(f"the agent told of process {number} after its end: {_short(message)}")
        try:
            if kind == "exited":
                status = message["status"]
                if type(status) is not int:
                    raise ValueError(f"exit status {status!r}")
                inbox.ended = True
                inbox.add(Exited(status), 0)
            elif kind == "control":
                if wrong := inbox.control(to_bytes(message["data"])):
                    self.lose(f"process {number} {wrong}")
            else:
                data = to_bytes(message["data"])
                inbox.add(Output(Stream(str(kind)), data), len(data))
        except (KeyError, ValueError, TypeError) as error:
            self.lose(f"the agent sent an event that is none: {_short(message)} ({error})")
        if inbox.waiting > _MOST_WAITING:
            self.lose(f"process {number} wrote {inbox.waiting} bytes that nobody fetched")

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, FrameError):
            self.lose(f"the agent sent {error}")
        self.lose(f"the agent is gone: {error}")

    def ignore_interrupt(self) -> None:
        """As `Channel.ignore_interrupt`."""
        self._channel.ignore_interrupt()

    def lose(self, cause: str) -> NoReturn:
        """Give this guest up; from now on every call raises the same GuestLost."""
        self._lost = self._explain(cause)
        raise self._lost


def _short(message: Mapping[str, Any]) -> str:
    text = json.dumps(message)
    return text if len(text) <= 120 else text[:117] + "..."
