# SPDX-License-Identifier: MIT
"""Hostile guests by name, each with what the lab calls it. docs/hostile-guests.md lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .program import report
from .scenario import Deed, Scenario

ONE, TWO = "tests/test_fuzzed_a.py::test_0", "tests/test_fuzzed_a.py::test_1"
NOBODY = "tests/test_nowhere.py::test_nobody"


@dataclass(frozen=True, slots=True)
class Named:
    """A hostile guest with two tests, both of which would pass, and what comes of it."""

    what: str
    deeds: tuple[Deed, ...]
    code: int
    verdicts: tuple[str, str]
    words: str
    """Said in the last line or as one of the verdicts' reasons."""


def _deed(at: str, nth: int, act: str, /, **with_: Any) -> Deed:
    return Deed(at, nth, act, with_)


def _set(at: str, nth: int, *path: str, value: Any) -> Deed:
    return _deed(at, nth, "set", path=list(path), value=value)


def _say(at: str, nth: int, what: str, how: str = "whole") -> Deed:
    return _deed(at, nth, "say", what=what, how=how)


_NEVER = ("never ran", "never ran")
_BOTH = ("passed", "passed")
GUESTS: dict[str, Named] = {
    "stranger": Named(
        "names another nonce than its kernel was given",
        (_set("hello", 0, "nonce", value="f" * 16),), 3, _NEVER, "the wrong nonce"),
    "other-tree": Named(
        "has other sources than the host",
        (_set("hello", 0, "tree_sha256", value="0" * 64),), 3, _NEVER, "the wrong tree_sha256"),
    "collector-of-nonsense": Named(
        "collects ids that are no text",
        (_set("collected", 0, "ids", value=[[]]),), 3, _NEVER, "which is no id"),
    "uninvited": Named(
        "starts a test that nobody named",
        (_set("start", 0, "id", value=NOBODY),), 3, _NEVER, "it said start of"),
    "repeater": Named(
        "finishes a test twice",
        (_deed("finish", 0, "twice", fit=True),), 3, ("passed", "never ran"), "it said finish of"),
    "swallower": Named(
        "leaves out the report of a call",
        (_deed("report", 1, "drop", fit=True),), 3, _NEVER, "3 reports of"),
    "forger": Named(
        "adds a report of another test",
        (_deed("report", 1, "insert", fit=True,
               value={"type": "report", "id": TWO, "data": report(TWO, "call", "passed")}),),
        3, _NEVER, "it said report of"),
    "inventor": Named(
        "reports an outcome that pytest does not have",
        (_set("report", 1, "data", "outcome", value="amazing"),), 3, _NEVER, "the outcome"),
    "timeless": Named(
        "reports a test that took no number of seconds",
        (_set("report", 1, "data", "duration", value=None),), 3, _NEVER, "its duration is None"),
    "excuse-maker": Named(
        "says that a test was expected to fail",
        (_set("report", 1, "data", "wasxfail", value="known"),), 1, ("failed", "passed"),
        "test_0 failed"),
    "truth-as-number": Named(
        "counts its messages with true instead of 1",
        (_set("collected", 0, "n", value=True),), 3, _NEVER, "message number True"),
    "troubled": Named(
        "says that its pytest broke, and passes the test all the same",
        (_deed("report", 1, "insert", fit=True, value={"type": "trouble", "text": "it broke"}),),
        3, _NEVER, "after its own trouble"),
    "miscounter": Named(
        "counts another number of tests at its end",
        (_set("done", 0, "finished", value=1),), 3, _BOTH, "it counts 1 tests"),
    "inconsistent": Named(
        "ends with the status of an internal error, although each test passed",
        (_set("done", 0, "status", value=3), _set("exited", 0, "status", value=3)),
        3, _BOTH, "ended with status 3, and its tests with 0"),
    "late-failure": Named(
        "ends with another status than it said",
        (_set("exited", 0, "status", value=1),), 3, _BOTH, "failed after its last test"),
    "immortal": Named(
        "never tells that pytest has ended",
        (_deed("exited", 0, "drop"),), 3, _BOTH, "did not end when told to"),
    "quitter": Named(
        "ends its process in the middle of a test",
        (_deed("report", 1, "exit", status=0),), 3, ("lost", "passed"), "of its own accord"),
    "mute": Named(
        "falls silent in a test",
        (_deed("report", 1, "silence"),), 3, ("lost", "passed"), "no verdict within"),
    "deaf": Named(
        "answers nothing any more",
        (_deed("finish", 0, "deaf"),), 3, ("lost", "passed"), "did not answer"),
    "sleeper": Named(
        "sleeps for a week in a test",
        (_deed("report", 1, "jump", seconds=604_800),), 3, _BOTH, "did not answer"),
    "bit-flipper": Named(
        "damages a frame on its way",
        (_deed("report", 1, "frame", how="flip", at=40),), 3, ("lost", "passed"), "CRC-32"),
    "echo": Named(
        "sends a frame twice",
        (_deed("report", 1, "frame", how="twice", at=0),), 3, ("lost", "passed"), "a duplicate"),
    "murmurer": Named(
        "complains while it is probed",
        (_say("probe", 0, "kcsan"),), 1, _BOTH, "while it was probed"),
    "last-gasp": Named(
        "complains after its last test",
        (_say("done", 0, "rcu-stall"),), 1, _BOTH, "after the last test"),
    "stutterer": Named(
        "complains in two pieces, between which another processor speaks",
        (_say("report", 1, "hung-task", "woven"),), 1, ("splat", "passed"), "test_0 splat"),
    "whisperer": Named(
        "complains in the second line of a record",
        (_say("report", 1, "lockdep", "broken"),), 1, ("splat", "passed"), "circular locking"),
    "liar-that-is-ill": Named(
        "complains in a test, and leaves out the test's report",
        (_say("start", 0, "kasan"), _set("report", 1, "data", "when", value="setup")),
        1, _NEVER, "KASAN"),
    "forgetful": Named(
        "loses 17 records of its kernel's log",
        (_deed("report", 1, "gap", count=17),), 3, _BOTH, "are lost (17)"),
    "illegible": Named(
        "has a log that is none",
        (_deed("log", 6, "data", bytes="no record\n"),), 3, ("lost", "passed"), "is no record"),
    "silent-witness": Named(
        "cannot read its log any more, and its console has a complaint",
        (_say("done", 0, "kfence"), _deed("log", 9, "error", text="EIO"),
         _deed("log", 10, "error", text="EIO")), 1, _BOTH, "KFENCE"),
    "forgetful-witness": Named(
        "loses records of its log, and the console has the complaint among them",
        (_say("log", 1, "oops"), _deed("log", 1, "error", text="EIO"),
         _deed("log", 2, "data", bytes="4,99999,1,-;later\n")), 1, _NEVER, "NULL pointer"),
    "panicker": Named(
        "panics in a test, without a newline at the end",
        (_deed("report", 1, "lost", what="panic", how="no newline"),), 1, ("splat", "passed"),
        "Kernel panic"),
    "stillborn": Named(
        "panics before its agent speaks",
        (_deed("boot", 0, "lost", what="oops", how="newline"),), 1, _NEVER, "NULL pointer"),
}  # fmt: skip


def scenario(name: str) -> Scenario:
    """One of them as a scenario."""
    return Scenario(("passed", "passed"), 1, GUESTS[name].deeds)
