# SPDX-License-Identifier: MIT
"""Runs to make pages of: the files of a run's directory without the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HOSTILE = "tests/test_hostile.py::test_it[<script>alert(1)</script>-\x1b[31m-\x00-\"'&-\u202e]"
WHY = "AssertionError: <img src=x onerror=alert(2)> \x1b[1m\x00"
OUTPUT = (
    b"-- call: failed\n</script><script>alert(3)</script>\n\x1b[31mred\x1b[0m \x00 \xff\xfe end\n"
)
COMPLAINT = "[    9.000000] BUG: KASAN: use-after-free in <b>it</b>"
GOOD = "tests/test_good.py::test_good"
SPLAT = "tests/test_bad.py::test_splat"
LOST = "tests/test_bad.py::test_hangs"


class Crafted:
    """A run on some kernels, each with the same tests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, whole: Mapping[str, Any]) -> None:
        """Write results.json."""
        (self.directory / "results.json").write_text(json.dumps(whole))

    def whole(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads((self.directory / "results.json").read_text()))

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change it, as by hand."""
        whole = self.whole()
        change(whole)
        self.write(whole)

    def part(self, file: str, text: bytes) -> dict[str, Any]:
        """Append to a file, and say where."""
        with (self.directory / file).open("ab") as log:
            begin = log.tell()
            log.write(text)
        return {"file": file, "begin": begin, "end": begin + len(text)}

    def tests(
        self, kernel: str, names: Sequence[str], output: bytes = OUTPUT
    ) -> dict[str, dict[str, Any]]:
        """Verdicts: what a name promises, for half of the others' times a skip."""
        found: dict[str, dict[str, Any]] = {}
        now = 5.0
        for number, name in enumerate(names):
            verdict, why, words, said = "passed", "", b"", f"[    8.0] lab: start {name}\n"
            complaints = []
            if name == HOSTILE:
                verdict, why, words = "failed", WHY, output
            elif name == SPLAT:
                verdict, why, complaints = "splat", COMPLAINT, [COMPLAINT]
                said += f"{COMPLAINT}\n[    9.000000] Call Trace:\n"
            elif name == LOST:
                verdict, why, words = "lost", "no verdict within 60 s", b"-- last output\nwaiting\n"
            elif number % 9 == 4:
                verdict, why = "skipped", "needs NAPI: not observed"
            seconds = 60.0 if verdict == "lost" else 0.25
            found[name] = {
                "verdict": verdict,
                "seconds": seconds,
                "why": why,
                "issues": [92] if number % 3 == 0 else [],
                "reproduce": f"lab test --kernel {kernel} '{name}'",
                "began": now,
                "ran_in": 0,
                "output": self.part("tests.log", words) if words else None,
                "kernel_log": self.part("kernel.log", said.encode("utf-8", "backslashreplace")),
                "complaints": complaints,
            }
            now += seconds
        return found

    def leg(
        self, kernel: str, names: Sequence[str], output: bytes = OUTPUT, *, code: int = 1
    ) -> dict[str, Any]:
        """One kernel's part."""
        (self.directory / "console.log").write_text("console\n")
        verdicts = self.tests(kernel, names, output)
        proved = sum(one["verdict"] == "passed" for one in verdicts.values())
        proving = [one for one in verdicts.values() if 92 in one["issues"]]
        good = sum(one["verdict"] == "passed" for one in proving)
        finding = {"declared": None, "accepted": True, "observed": True}
        return {
            "name": kernel,
            "asked": kernel,
            "kernel": {
                "series": kernel,
                "upstream": kernel,
                "package": f"{kernel}-1",
                "release": f"{kernel}-amd64",
                "source": "debian",
                "locked": True,
                "verified_by": "a lock",
                "replaces": "",
            },
            "cell": kernel,
            "narrowed": [],
            "contract": None,
            "launcher": "qemu",
            "wishes": [],
            "guests": [
                {
                    "release": f"{kernel}-amd64",
                    "nonce": "0123456789abcdef",
                    "accel": "tcg",
                    "accel_reason": "there is no /dev/kvm",
                    "entry": "",
                    "boot_seconds": 3.5,
                    "slowdown": 11.0,
                    "wishes": [],
                    "files": ".",
                    "number": 1,
                    "began": 0.5,
                    "up": 4.0,
                    "ended": 90.0,
                }
            ],
            "at_once": 1,
            "repeat": 1,
            "identity": {},
            "probe": {
                "release": f"{kernel}-amd64",
                "error": None,
                "capabilities": {"INC": {**finding, "evidence": {"res": "<i>1</i>"}, "note": ""}},
                "facts": {},
            },
            "capabilities": {
                "INC": {
                    **finding,
                    "promised": False,
                    "basis": "measured",
                    "from": "6.12",
                    "surprise": True,
                }
            },
            "errata": [
                {
                    "id": "IOX-ERR-001",
                    "title": "A <b>bundle</b> is lost",
                    "reproducer": names[0],
                    "listed": "known_bad",
                    "verdict": verdicts[names[0]]["verdict"],
                    "why": "",
                }
            ],
            "collected": len(names),
            "selected": len(names),
            "proved": proved,
            "left_out": {},
            "verdicts": verdicts,
            "issues": [
                {
                    "issue": 92,
                    "tests": len(proving),
                    "proved": good,
                    "absent": 0,
                    "bad": 0,
                    "unproved": 0,
                    "word": "proved" if good == len(proving) else "in part",
                }
            ],
            "problems": [],
            "faults": [],
            "notes": [],
            "seconds": 91.5,
            "exit": {"code": code, "why": f"{HOSTILE} failed" if code else "all passed"},
        }


def crafted(
    directory: Path,
    kernels: Sequence[str] = ("6.1.176", "6.12.107"),
    names: Sequence[str] = (GOOD, HOSTILE, SPLAT, LOST),
    output: bytes = OUTPUT,
    code: int = 1,
) -> Crafted:
    """A run with these tests, of which `HOSTILE`, `SPLAT` and `LOST` are what they say."""
    run = Crafted(directory)
    legs = {kernel: run.leg(kernel, names, output, code=code) for kernel in kernels}
    run.write(
        {
            "version": 1,
            "began": "2026-01-01T00:00:00Z",
            "ended": "2026-01-01T00:01:32Z",
            "seconds": 92.0,
            "selection": None,
            "previous": None,
            "notes": [],
            "legs": legs,
            "exit": {"code": code, "why": f"{HOSTILE} failed" if code else "all passed"},
        }
    )
    return run
