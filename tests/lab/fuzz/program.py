# SPDX-License-Identifier: MIT
"""The guest's pytest as a script: an honest conversation, which deeds may spoil."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lab.vm.inguest.frames import to_text

from .messages import Messages
from .world import DOUBTED, RELEASE

if TYPE_CHECKING:
    from .agent import Agent

_SIGKILL = 9


class Pytest:
    """One process: pytest, or the probe."""

    def __init__(self, agent: Agent, number: int, hello: Mapping[str, str], probes: bool) -> None:
        self.number = number
        self.probes = probes
        self.silent = False
        self.ended = False
        self._agent = agent
        self._world = agent.world
        self._hello = hello
        self._honest = True
        self._doubted = False
        """Whether the present test has another verdict than it should."""
        self._messages = Messages(self.lie, self._doubt)
        self._heard = b""
        self._finished = self._failed = 0

    # -- what the agent sees -----------------------------------------------------------------

    def begin(self) -> None:
        """It has been started."""
        if not self.probes:
            self._say("hello", **self._hello, strangers=[], pid=2)

    def probe(self, report: bytes) -> None:
        """The probe has all its input: it prints its report and ends."""
        if self.silent or self.ended:
            return
        self._agent.send(event="stdout", process=self.number, data=to_text(report))
        self.end(0)

    def hear(self, data: bytes) -> None:
        """Bytes from the host."""
        self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            if not self.ended:
                self._answer(json.loads(line))

    def killed(self, signal: int) -> None:
        """A signal comes: SIGABRT and SIGKILL both end it, unless it hears no more."""
        if not self._agent.deaf and not self.ended:
            self.end(-signal)

    def end(self, status: int, *, early: bool = False) -> None:
        """It is gone. `early` if it had not been told to go."""
        if self.ended:
            return
        self.ended = True
        if early:
            self._world.wrongs.append(f"a process ended with {status} before its time")
        if not self._agent.dead:
            self._agent.send(event="exited", process=self.number, status=status)

    def lie(self, what: str) -> None:
        """What this process says from now on cannot count."""
        self._honest = False
        self._world.wrongs.append(what)

    def _doubt(self, what: str) -> None:
        self._doubted = True
        self._world.wrongs.append(what)

    # -- what it says ------------------------------------------------------------------------

    def _answer(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                self._say("collected", ids=list(self._world.names), errors=[])
            case "run":
                self._run(message["id"])
            case "stop":
                self._say("done", finished=self._finished, status=int(self._failed > 0), left=[])
                self._exit(int(self._failed > 0))

    def _exit(self, status: int) -> None:
        deeds = {deed.act: deed for deed in self._agent.come("exited", self)}
        if "drop" in deeds:
            self.lie("the end of a process was not told")
            self.ended = True
            return
        if "set" in deeds and type(other := deeds["set"].with_["value"]) is int and other != status:
            self.lie(f"pytest ended with {other}, not with {status} as it had said")
            status = other
        self.end(status)
        if "twice" in deeds:
            self.lie("the end of a process was told twice")
            self._agent.send(event="exited", process=self.number, status=status)

    def _run(self, name: str) -> None:
        outcome = self._world.outcome(name)
        self._doubted = False
        self._say("start", id=name)
        phases = ["setup", "teardown"] if outcome == "skipped" else ["setup", "call", "teardown"]
        for phase in phases:
            wrong = phase == {"failed": "call", "skipped": "setup"}.get(outcome)
            self._say("report", id=name, data=report(name, phase, outcome if wrong else "passed"))
        self._finished += 1
        self._failed += outcome == "failed"
        if self._say("finish", id=name, reports=len(phases)):
            self._world.said[name] = DOUBTED if self._doubted else outcome

    def _say(self, kind: str, **fields: Any) -> bool:
        """Whether this was said by an honest guest, whatever came behind it."""
        if self.ended or self._agent.dead:
            return False
        deeds = self._agent.come(kind, self)
        if self.ended or self._agent.dead or self.silent:
            return False
        honest = self._honest and self._agent.honest
        number = self._messages.next
        messages = self._messages.after(deeds, {"type": kind, **fields})
        for message in messages:
            line = json.dumps(message).encode() + b"\n"
            self._agent.send(event="control", process=self.number, data=to_text(line))
        due = {"n": number, "type": kind, **fields}
        return honest and bool(messages) and messages[0] == {**messages[0], **due}


def report(name: str, when: str, outcome: str) -> dict[str, Any]:
    """One phase's report, as pytest serializes it."""
    longrepr: object = None
    if outcome == "failed":
        longrepr = "assert 0"
    elif outcome == "skipped":
        longrepr = ["tests/test_it.py", 1, f"Skipped: needs NAPI: not observed on {RELEASE}"]
    return {
        "nodeid": name,
        "location": [name.partition("::")[0], 0, name.rpartition("::")[2]],
        "keywords": {"test_it.py": 1},
        "outcome": outcome,
        "longrepr": longrepr,
        "when": when,
        "user_properties": [],
        "sections": [],
        "duration": 0.01,
        "start": 1.0,
        "stop": 1.01,
        "$report_type": "TestReport",
    }
