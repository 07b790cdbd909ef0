# SPDX-License-Identifier: MIT
"""Reproducers run without pytest, as in the guests of a sweep: same gate, same exception."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioxide._errata.present import ErratumPresent, NotTried
from lab import project
from lab.errata.reproduce import find, probe_environment, reproduce
from lab.facts.errata import Seen
from lab.facts.probed import Finding, Probed
from lab.remote import sending
from lab.rules import contract, errata

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
PROJECT = project.read(ROOT)
HERE = "tests/lab/test_errata_reproduce.py"


def _probed(*observed: str) -> Probed:
    names = ("INC", "BUNDLE")
    return Probed(
        release="6.12.1+fake",
        error=None,
        findings={
            name: Finding(None, True, name in observed, {}, "" if name in observed else "refused")
            for name in names
        },
    )


def present() -> None:
    """A reproducer that finds its erratum."""
    raise ErratumPresent("IOX-ERR-001", "res=1")


def absent() -> None:
    """A reproducer that does not."""


def broken() -> None:
    """A reproducer whose control fails."""
    raise AssertionError("nothing was provoked\nat all")


def may_not() -> None:
    """A reproducer that this kernel does not let try."""
    raise NotTried("it has no userfaultfd(2)\nat all")


@pytest.mark.needs("INC", "BUNDLE")
def gated() -> None:
    """A reproducer that needs two capabilities."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("present", (Seen.PRESENT, "IOX-ERR-001: res=1")),
        ("absent", (Seen.ABSENT, "")),
        ("broken", (Seen.FAILED, "AssertionError: nothing was provoked")),
        ("may_not", (None, "not tried: it has no userfaultfd(2)")),
        ("no_such_test", (Seen.FAILED, "AttributeError: ")),
    ],
)
def test_what_a_reproducer_ends_in(name: str, expected: tuple[Seen | None, str]) -> None:
    """Its exception is presence, its return absence, that it may not says nothing, and anything
    else is a failure."""
    seen, evidence = reproduce(f"{HERE}::{name}", _probed("INC", "BUNDLE"))
    assert (expected[0], True) == (seen, evidence.startswith(expected[1]))


def test_gate_of_needs_holds_without_pytest() -> None:
    """Without a capability a reproducer does not run, and the reason is the probe's."""
    seen, evidence = reproduce(f"{HERE}::gated", _probed("INC"))
    assert seen is Seen.NOT_APPLICABLE
    assert evidence == "needs BUNDLE: not observed on 6.12.1+fake (refused)"
    assert (Seen.ABSENT, "") == reproduce(f"{HERE}::gated", _probed("INC", "BUNDLE"))


def test_every_reproducer_is_found() -> None:
    """Each node id of errata.toml names a function that can be called."""
    for erratum in errata.of(PROJECT):
        _, function = find(erratum.reproducer)
        assert callable(function)


def test_process_says_line_by_line() -> None:
    """`python -m lab.errata.reproduce` on this machine: each reproducer begins and has one word,
    and the last line says that it is done."""
    quick = [e.reproducer for e in errata.of(PROJECT) if "min_wait" not in e.reproducer][:3]
    command = sending.command(PROJECT.probe)
    asked = probe_environment(command, PROJECT.mask_variable, contract.of(PROJECT).names)
    done = subprocess.run(
        [sys.executable, "-m", "lab.errata.reproduce", *quick],
        cwd=ROOT,
        env={**os.environ, **asked},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines, last = map(json.loads, done.stdout.splitlines())
    told = [first, *lines, last]
    assert list(range(len(told))) == [line["n"] for line in told]
    assert ("hello", os.uname().release) == (first["type"], first["release"])
    assert ("done", len(quick)) == (last["type"], last["found"])
    assert quick == [line["id"] for line in lines[::2] if line["type"] == "begun"]
    assert quick == [line["id"] for line in lines[1::2] if line["type"] == "found"]
    assert {line["seen"] for line in lines[1::2]} <= {"present", "absent", "n/a"}
