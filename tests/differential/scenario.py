# SPDX-License-Identifier: MIT
"""The vocabulary: what a scenario is, as plain data that travels as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

WAYS = ("accept", "accept-sock", "connect", "sock", "accepted")
"""How connections come to the loop: ``create_server()``, the same with ``sock=``,
``create_connection()``, the same with ``sock=``, ``connect_accepted_socket()``."""

APIS = ("protocol", "buffered", "streams")

IN_CALLBACKS = (
    *("write", "writelines", "pause", "resume", "eof", "close", "abort", "linger"),
    *("close-lent", "number"),
)
"""What a protocol may do in a callback of its own, and the program from outside."""

ONLY_IN_CALLBACKS = {
    "raise": "the callback ends with an exception of the program's",
    "interrupt": "the callback ends with KeyboardInterrupt, and the loop is run again",
}

LOOP_STEPS = {
    **dict.fromkeys(IN_CALLBACKS, "the transport's method"),
    "linger": "sets SO_LINGER to (1, 0)",
    "close-lent": "the owner closes the socket that was given with sock=",
    "number": "opens files and sockets, which take the numbers that are free",
    "waiting": "notes how many bytes wait in the socket for somebody to read them",
    "writelines-wrong": "writelines() with a str behind a bytes",
    "write-wrong": "write() of a str",
    "thread-write": "write() by call_soon_threadsafe() of another thread",
    "read": "a task that reads n bytes of the stream",
    "cancel": "cancels the last task that reads",
    "drain": "a task that drains the stream's writer",
    "drop": "drops the references to transport and protocol, and collects",
    "unlisten": "server.close()",
    "close-listener": "the owner closes the listening socket that was given with sock=",
    "short": "n clients connect while the process has no descriptor left",
}
PEER_STEPS = {
    "send": "n bytes",
    "trickle": "n single bytes, each by a send of its own",
    "shut": "shutdown(SHUT_WR)",
    "end": "close()",
    "reset": "SO_LINGER (1, 0), then close()",
    "stall": "reads no more",
    "unstall": "reads again",
    "another": "one more client connects",
    "another-reset": "one more client connects and resets before the loop can accept it",
}
OPS = (*LOOP_STEPS, *PEER_STEPS, *ONLY_IN_CALLBACKS)
OF_PART = {"steps": (*LOOP_STEPS, *PEER_STEPS)}
"""The words of the program's part; those of the others are a callback's."""

KINDS = ("connections", "workers", "threads", "fork")
WAYS_OF = {"connections": WAYS, "workers": ("free", "busy"), "fork": ("run", "made")}
"""What ``way`` may be; each letter of that of ``threads`` is a thread: see `processes`."""
PARTS = ("made", "data", "eof", "lost", "steps")


class ScenarioError(Exception):
    """A line is no scenario; the message names what is wrong."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the program or its peer does."""

    op: str
    on: int = 0
    """Which connection, counted from 0 in the order in which they were opened."""
    n: int = 0
    at_once: bool = False
    """The next step follows in the same callback; otherwise the loop runs until all is quiet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A program and what its peers do."""

    kind: str = "connections"
    """``connections``, or one that needs a process of its own: see `processes`."""
    way: str = "accept"
    api: str = "protocol"
    tls: bool = False
    connections: int = 1
    keep_open: bool = False
    """What ``eof_received()`` returns."""
    made: tuple[Step, ...] = ()
    """What each protocol does in ``connection_made()``."""
    data: tuple[Step, ...] = ()
    """What each protocol does in its first ``data_received()``."""
    eof: tuple[Step, ...] = ()
    """What each protocol does in its first ``eof_received()``."""
    lost: tuple[Step, ...] = ()
    """What each protocol does in ``connection_lost()``."""
    steps: tuple[Step, ...] = ()
    """What happens from outside, then the program leaves its main coroutine."""
    close: bool = True
    """Before that it closes what is open."""

    def line(self) -> str:
        """The scenario as a line that `parse` reads; what is as usual is left out."""
        usual = asdict(Scenario())
        data: dict[str, Any] = {k: v for k, v in asdict(self).items() if v != usual[k]}
        for key in PARTS:
            if key in data:
                data[key] = [_short(step) for step in getattr(self, key)]
        return json.dumps(data, separators=(",", ":"))

    def ops(self) -> frozenset[str]:
        """Every operation in it."""
        return frozenset(step.op for part in PARTS for step in getattr(self, part))

    def own_process(self) -> bool:
        """Whether it forks or changes the process's limits, so that nothing may run after it."""
        return self.kind != "connections"

    def but(self, **changes: Any) -> Scenario:
        """The same with some fields changed."""
        return replace(self, **changes)


def _short(step: Step) -> list[Any]:
    values: list[Any] = [step.op, step.on, step.n, int(step.at_once)]
    while len(values) > 1 and not values[-1]:
        values.pop()
    return values


def parse(line: str) -> Scenario:
    """A scenario of its line; raises `ScenarioError`."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise ScenarioError(f"{line!r} is not JSON: {error}") from None
    usual = asdict(Scenario())
    if not isinstance(data, dict):
        raise ScenarioError(f"{line!r} is no object of JSON; an empty one is {{}}")
    if unknown := set(data) - set(usual):
        raise ScenarioError(
            f"{line!r} has keys that no scenario has: {sorted(unknown)}; there are {sorted(usual)}"
        )
    for key, value in data.items():
        if key in PARTS:
            data[key] = _steps(key, value)
        elif type(value) is not type(usual[key]):
            raise ScenarioError(f"{key} {value!r} must be {type(usual[key]).__name__}")
    scenario = Scenario(**data)
    if scenario.connections < 0:
        raise ScenarioError(f"connections {scenario.connections} must not be negative")
    for name, value, allowed in (
        ("kind", scenario.kind, KINDS),
        ("way", scenario.way, WAYS_OF.get(scenario.kind, WAYS)),
        ("api", scenario.api, APIS),
    ):
        if (name, scenario.kind) == ("way", "threads"):
            if len(value) < 3 or set(value) - set("ht"):
                raise ScenarioError(
                    f"way {value!r} of threads must be three letters or more, each h or t"
                )
        elif value not in allowed:
            raise ScenarioError(f"{name} {value!r} is none of {allowed}")
    return scenario


def _steps(key: str, value: Any) -> tuple[Step, ...]:
    """The steps of one part of a scenario; raises `ScenarioError`."""
    if not isinstance(value, list):
        raise ScenarioError(f"{key} {value!r} must be a list of steps")
    steps = []
    for values in value:
        if not isinstance(values, list) or not 1 <= len(values) <= 4 or values[0] not in OPS:
            raise ScenarioError(f"{values!r} in {key!r} is no step; the words are {OPS}")
        words = OF_PART.get(key, (*IN_CALLBACKS, *ONLY_IN_CALLBACKS))
        if values[0] not in words:
            raise ScenarioError(f"{values[0]!r} cannot be in {key!r}; the words there are {words}")
        if any(type(number) is not int or number < 0 for number in values[1:]):
            raise ScenarioError(f"{values!r} in {key!r}: behind the word are counts, from 0 on")
        op, on, n, at_once = (*values, 0, 0, 0)[:4]
        steps.append(Step(op, on, n, bool(at_once)))
    return tuple(steps)
