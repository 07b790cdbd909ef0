# SPDX-License-Identifier: MIT
"""A little repository to run `lab test` and `pytest` in, with a canned probe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
LIMIT_SECONDS = 120

TWO = "def test_one(): pass\ndef test_two(): pass\n"
"""The tests of a run that is not about its tests."""

COMPLAIN = """
import os, time
def complain():
    ready, begun = os.pipe()
    victim = os.fork()
    if victim == 0:
        with open("/proc/self/oom_score_adj", "w") as score: score.write("1000")
        os.write(begun, b".")
        time.sleep(60)
    os.read(ready, 1)
    with open("/dev/kmsg", "rb", buffering=0) as log:
        os.lseek(log.fileno(), 0, os.SEEK_END)
        with open("/proc/sysrq-trigger", "w") as trigger: trigger.write("f")
        while b"Killed process" not in log.read(8192): pass
    os.waitpid(victim, 0)
"""
"""Makes the kernel itself complain: it kills a process for want of memory because it is told to.
What a process writes into the log is no complaint."""

IOXIDE = """\
import json, os


def finding(observed, note=""):
    evidence = {"res": 1} if observed else {}
    return {
        "declared": None,
        "accepted": observed,
        "observed": observed,
        "evidence": evidence,
        "note": note,
    }


class Report:
    def to_json(self):
        return json.dumps(
            {
                "release": os.uname().release,
                "error": os.environ.get("CANNED_ERROR") or CANNED_ERROR,
                "capabilities": {
                    "INC": finding(True),
                    "NAPI": finding(False, "counter stayed 0"),
                    "ZCRX": finding(None, "no device"),
                },
            }
        )


CANNED_ERROR = None


def probe():
    return Report()
"""
# What the canned probe says, promised to the fake guest's 6.12 and to whatever runs these tests.
EXPECTED = """\
"3.0".INC = "yes, measured"
"3.0".NAPI = "no, measured"
"3.0".ZCRX = "no, assumed"
"6.1".INC = "yes, measured"
"6.1".NAPI = "no, measured"
"6.1".ZCRX = "no, measured"
"6.12".INC = "yes, measured"
"6.12".NAPI = "no, measured"
"6.12".ZCRX = "no, measured"
"99.0".INC = "yes, assumed"
"99.0".NAPI = "yes, assumed"
"99.0".ZCRX = "yes, assumed"
"""
REPRODUCERS = "tests/kernel_gated/errata"
TABLE = f"""\
[tool.lab]
kernels = ["6.12"]
include = ["ioxide", "tests"]
exclude = ["tests/lab"]
plugins = []
probe = ["python", "-m", "ioxide", "probe", "--json"]
mask-variable = "IOXIDE_CAPS"
contract = "tests/kernels/expected.toml"
skips-need-proof = true
by-make = true
issues = "tests/kernels/issues_in.txt"

[tool.lab.errata]
list = "tests/kernels/errata.toml"
reproducers = "{REPRODUCERS}"

"""
"""The little repository's own."""
PRESENT = """
class ErratumPresent(Exception):
    def __init__(self, id, evidence):
        super().__init__(id, evidence)
        self.id, self.evidence = id, evidence
"""
"""What a reproducer raises."""
IOXIDE_MAIN = "import ioxide\nprint(ioxide.probe().to_json())\n"


def leg_of(files: Path) -> dict[str, Any]:
    """The first leg of a run, from the run's directory: that of a run on one kernel."""
    legs = json.loads((files / "results.json").read_text())["legs"]
    return dict(next(iter(legs.values())))


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that ended."""

    code: int
    output: str
    results: dict[str, Any] | None
    """The first leg of results.json, if the run came to write one."""
    files: Path
    """The newest directory of results; may not exist."""

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict by the test's name without its file."""
        assert self.results is not None, self.output
        return {
            name.rpartition("::")[2]: found["verdict"]
            for name, found in self.results["verdicts"].items()
        }

    def why(self, test: str) -> str:
        """What was said about one test, named without its file."""
        assert self.results is not None, self.output
        return next(
            str(found["why"])
            for name, found in self.results["verdicts"].items()
            if name.rpartition("::")[2] == test
        )

    @property
    def last_line(self) -> str:
        """The last line printed."""
        return self.output.rstrip().splitlines()[-1]


class Little:
    """A repository with the real lab, the real settings, and tests of the test's choice."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limit_s = LIMIT_SECONDS
        """How long a run may take."""
        shutil.copytree(
            REPOSITORY / "lab", root / "lab", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copytree(
            REPOSITORY / "tests/lab/hostile",
            root / "tests/lab/hostile",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        settings = (REPOSITORY / "pyproject.toml").read_text()
        before, _, rest = settings.partition("[tool.lab]")
        (root / "pyproject.toml").write_text(f"{before}{TABLE}{rest[rest.index('[tool.ruff]') :]}")
        for package in ("tests", "tests/lab"):
            (root / package / "__init__.py").touch()
        self.write("tests/kernels/expected.toml", EXPECTED)
        self.write("tests/kernels/errata.toml", "")
        self.write("tests/kernels/issues_in.txt", "")
        (root / REPRODUCERS).mkdir(parents=True)
        self.write("ioxide/__init__.py", IOXIDE)
        self.write("ioxide/__main__.py", IOXIDE_MAIN)

    def write(self, path: str, text: str) -> None:
        """Write a file of the repository."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def tests(self, text: str, path: str = "tests/test_it.py") -> None:
        """Write a file of tests; what they mostly need is imported for them."""
        self.write(path, f"import os, signal, sys, time\nimport pytest\n{text}")

    def environment(self, **more: str) -> dict[str, str]:
        """An environment in which nothing of this session leaks into the run."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "LAB_", "SLOW"))}
        quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p pytest_timeout"}
        return kept | quick | {"COLUMNS": "200", "CI": "1"} | more

    def lab(
        self,
        *arguments: str,
        kernel: str = "6.12",
        fake: Mapping[str, Any] | None = None,
        **more: str,
    ) -> Ran:
        """`python -m lab test` with a fake guest of these misdeeds."""
        plugin = ("-p", "tests.lab.hostile.plugin")
        told = {"LAB_FAKE": json.dumps(fake or {})} | more
        return self.run("lab", "test", "--kernel", kernel, *plugin, *arguments, **told)

    def pytest(self, *arguments: str, **more: str) -> Ran:
        """Plain pytest, as on any developer's machine."""
        return self.run("pytest", *arguments, **more)

    def run(self, module: str, *arguments: str, **more: str) -> Ran:
        """`python -m MODULE ARGUMENTS...` in the repository, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=self.limit_s,
            check=False,
        )
        return self.ran(done.returncode, done.stdout)

    def ran(self, code: int, output: str) -> Ran:
        """A finished run with its newest results."""
        files = self.root / "lab-results/latest"
        try:
            results = leg_of(files)
        except FileNotFoundError:
            results = None
        return Ran(code, output, results, files)
