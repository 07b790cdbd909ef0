# SPDX-License-Identifier: MIT
"""A guest's agent that plays a scenario, behind the real framing, `Link`, `Process` and `Guest`.

It is honest unless a deed says otherwise, and tells the world of every lie.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.vm.channel import ChannelClosed
from lab.vm.inguest.frames import Decoder, encode, to_bytes, to_text

from .corpus import COMPLAINTS, TALK
from .program import Pytest
from .scenario import Deed
from .world import RELEASE, World

_KERNEL, _USER = 4, 12
PROBE = {
    "release": RELEASE,
    "error": None,
    "capabilities": {
        "NAPI": {
            "declared": None,
            "accepted": False,
            "observed": False,
            "evidence": {},
            "note": "the counter stayed 0",
        },
        "INC": {
            "declared": None,
            "accepted": True,
            "observed": True,
            "evidence": {"res": 1},
            "note": "",
        },
    },
}


class Agent:
    """The far end of a channel: takes requests, and has frames for whoever reads."""

    def __init__(self, world: World, console: Path, nonce: str, hashes: Mapping[str, str]) -> None:
        self.world = world
        self.console = console
        self.honest = True
        """Whether nothing that came from this guest was wrong yet."""
        self.dead = False
        self.deaf = False
        self.frames: deque[bytes] = deque()
        self._hello = {"nonce": nonce, "release": RELEASE, **hashes}
        self._seq = 0
        self._damage: list[Mapping[str, Any]] = []
        self._records: list[bytes] = []
        self._number = 0
        self._micros = 0
        self._answer: dict[str, Any] | None = None
        self._programs: dict[int, Pytest] = {}
        console.write_text("")
        self.record("Linux version 6.12.107")

    # -- the kernel --------------------------------------------------------------------------

    def record(self, text: str, *, priority: int = _KERNEL, fragment: bool = False) -> None:
        """The kernel writes one record."""
        self._micros += 1000
        flags = "c" if fragment else "-"
        escaped = text.replace("\n", "\\x0a")
        line = f"{priority},{self._number},{self._micros},{flags};{escaped}\n"
        self._records.append(line.encode())
        self._number += 1

    def _print(self, text: str, end: str = "\n") -> None:
        with self.console.open("a") as file:
            file.write(f"[{self._micros // 1_000_000:5}.{self._micros % 1_000_000:06}] {text}{end}")

    def _say(self, what: str, how: str) -> None:
        lines = COMPLAINTS[what] if what in COMPLAINTS else TALK[int(what)]
        first, *rest = lines
        half = first.find(" ", len(first) // 2)
        pieces = how in ("cut", "woven") and half > 0
        if what in COMPLAINTS and how != "user":
            # Of a line in pieces, a piece that tells of the complaint alone may be named alone.
            told = (first[:half], first[half:].strip()) if pieces else (first,)
            self.world.complaints.append(told)
            self.world.wrongs.append(f"the kernel complained: {first}")
        priority = _USER if how == "user" else _KERNEL
        if pieces:
            self.record(first[:half])
            if how == "woven":  # another processor's words come between
                self.record(TALK[0][0])
                self._print(TALK[0][0])
            self.record(first[half:], fragment=True)
        elif how == "broken":  # one record of two lines
            self.record(f"{TALK[0][0]}\n{first}")
        else:
            self.record(first, priority=priority)
        self._print(first)
        for number, line in enumerate(rest):
            self.record(line, priority=priority)
            self._print(line)
            if how == "woven" and number == 0:
                self.record(TALK[2][1])
                self._print(TALK[2][1])

    def _die(self, what: str, how: str) -> None:
        if what in COMPLAINTS:
            self.world.complaints.append((COMPLAINTS[what][0],))
            self._micros += 1000
            self._print(COMPLAINTS[what][0], "" if how == "no newline" else "\n")
        self.world.wrongs.append("a guest died")
        self.dead = True

    # -- deeds -------------------------------------------------------------------------------

    def come(self, moment: str, program: Pytest | None = None) -> list[Deed]:
        """A moment has come: do what is to be done then, and return what is left to a message."""
        left = []
        for deed in self.world.deeds(moment):
            if not self._do(deed, program):
                left.append(deed)
        return left

    def lie(self, what: str) -> None:
        """What this guest says from now on cannot count."""
        self.honest = False
        self.world.wrongs.append(what)

    def _do(self, deed: Deed, program: Pytest | None) -> bool:
        with_ = deed.with_
        match deed.act:
            case "say":
                self._say(with_["what"], with_["how"])
            case "gap":
                self._number += with_["count"]
                self.record("overwritten")
                self.world.wrongs.append("records of the kernel's log are lost")
            case "lost":
                self._die(with_["what"], with_["how"])
            case "deaf":
                self.deaf = True
                self.lie("the agent fell silent")
            case "jump":
                self.world.clock.sleep(with_["seconds"])
            case "frame":
                self._damage.append(with_)
            case "data":
                self._answer = {"data": to_text(with_["bytes"].encode("utf-8", "surrogateescape"))}
                self.world.wrongs.append("the agent's answer about the log is not the log")
            case "error":
                self._answer = {"error": with_["text"]}
                self.lie("the agent says that it cannot")
            case "noise" if program is not None:
                data = with_["bytes"].encode("utf-8", "surrogateescape") * with_["times"]
                self.send(event="stdout", process=program.number, data=to_text(data))
            case "exit" if program is not None:
                program.end(with_["status"], early=True)
            case "silence" if program is not None:
                program.silent = True
                program.lie("a process fell silent")
            case _:
                return False
        return True

    # -- the channel -------------------------------------------------------------------------

    def send(self, **message: Any) -> None:
        """Put one frame in line."""
        if self.deaf:
            return
        self._seq += 1
        data = encode({"seq": self._seq, **message})
        honest = data
        for damage in self._damage:
            how, at = damage["how"], damage["at"] % max(1, len(data))
            if how == "flip" and data:
                data = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
            elif how == "cut":
                data = data[:at]
            elif how == "twice":
                data += data
            elif how == "add":
                data += bytes(range(64))
            else:
                data = b""
        if data != honest:  # two damages may undo each other
            self.lie(f"a frame was damaged: {self._damage[0]['how']}")
        self._damage.clear()
        self.frames.append(data)

    def take(self, request: Mapping[str, Any]) -> None:
        """Do what the host asks for, and answer."""
        op = request["op"]
        self._answer = None
        if op == "tar":
            self.come("tar")
        elif op == "spawn":
            program = Pytest(self, request["process"], self._hello, "probe" in request["argv"])
            self._programs[request["process"]] = program
            self.come("probe" if program.probes else "spawn", program)
        elif op == "kernel_log":
            self.come("log")
        elif op == "kill":
            self.come("kill")
        if not self.dead:
            self._reply(op, request)

    def _reply(self, op: str, request: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"re": request["id"]}
        if op == "kernel_log":
            answer |= {"data": to_text(b"".join(self._records)), "more": False}
            if self._answer is None:
                self._records.clear()
        self.send(**answer | (self._answer or {}))
        if self._answer and "error" in self._answer:
            return
        match op:
            case "spawn":
                self._programs[request["process"]].begin()
            case "control":
                self._programs[request["process"]].hear(to_bytes(request["data"]))
            case "kill":
                self._programs[request["process"]].killed(request["signal"])
            case "stdin" if request["last"]:
                self._programs[request["process"]].probe(json.dumps(PROBE).encode())
            case "kernel_log" if request["mark"]:
                self.record(request["mark"], priority=_USER + 1)
                self._print(request["mark"])


class ScriptedChannel:
    """As lab.vm.channel.Channel, with an agent in the same thread; waiting is the clock's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._decoder = Decoder()
        self._ready: deque[dict[str, Any]] = deque()

    def send(self, message: dict[str, Any], *, deadline: float) -> None:  # noqa: ARG002
        """As Channel.send."""
        self._agent.dead |= self._agent.world.asked()
        if self._agent.dead:
            raise ChannelClosed("the port does not take a message")
        self._agent.take(json.loads(json.dumps(message)))

    def receive(self, *, deadline: float) -> dict[str, Any]:
        """As Channel.receive."""
        self._agent.dead |= self._agent.world.asked()
        clock = self._agent.world.clock
        while not self._ready:
            if clock.monotonic() >= deadline:
                raise TimeoutError
            if self._agent.frames:
                self._ready.extend(self._decoder.feed(self._agent.frames.popleft()))
            elif self._agent.dead:
                raise ChannelClosed("the machine has ended")
            else:
                clock.sleep(deadline - clock.monotonic())
        return self._ready.popleft()

    def wait(self, others: Sequence[int], *, timeout_s: float) -> set[int]:  # noqa: ARG002
        """As Channel.wait."""
        return set()

    def ended(self, timeout_s: float) -> bool:
        """As Channel.ended."""
        if not self._agent.dead:
            self._agent.world.clock.sleep(timeout_s)
        return self._agent.dead


__all__ = ["PROBE", "Agent", "ScriptedChannel"]
