# SPDX-License-Identifier: MIT
"""`make lab-pythons`: the lab's plugin under each Python and pytest that it is for.

Each has an environment of its own in the lab's cache, with the lab installed as anybody does it.
There the tests of the plugin run on this machine, without QEMU, and with `--kernel` somebody else's
repository in a guest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lab import cache
from tests.lab import foreign_support
from tools import pythons

REPOSITORY = Path(__file__).parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13")
PYTESTS = ("8.3.*", "newest")
PLUGINS = ("anyio", "hypothesis", "pytest-asyncio", "pytest-cov", "pytest-timeout", "pytest-xdist")
TESTS = tuple(
    f"tests/lab/{name}.py"
    for name in ("test_suite_pytest", "test_suite_local", "test_suite_setup", "test_suite_parts")
)


def environment(python: str, pytest: str) -> Path:
    """The Python of an environment with this pytest, made or brought up to date."""
    place = cache.root() / "pythons" / f"{Path(python).name}-pytest-{pytest.removesuffix('.*')}"
    if not (place / "bin/python").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(place)], check=True)
    wanted = ["pytest"] if pytest == "newest" else [f"pytest=={pytest}", "pytest-subtests"]
    pip = [str(place / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--upgrade", *wanted, *PLUGINS]
    subprocess.run(install, check=True)
    again = [*pip, "install", "--force-reinstall", "--no-deps", "./lab"]
    subprocess.run([*pip, "install", "./lab"], cwd=REPOSITORY, check=True)
    subprocess.run(again, cwd=REPOSITORY, check=True)
    return place / "bin/python"


def on_this_machine(python: Path) -> bool:
    """Whether the tests of the plugin pass."""
    done = subprocess.run([python, "-m", "pytest", "-q", *TESTS], cwd=REPOSITORY, check=False)
    return done.returncode == 0


def in_a_guest(python: Path, kernel: str) -> bool:
    """Whether each test of somebody else's repository comes to what it is to come to."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        foreign_support.write(root)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "LAB_SLOW"))}
        done = subprocess.run(
            [python, "-m", "kernel_lab", "test", "--kernel", kernel, "--cov=foreign"],
            cwd=root,
            env=kept,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 1 and foreign_support.as_expected(root)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and print the table; 1 if something is not as it is to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.pythons", description=__doc__)
    parser.add_argument("--python", action="append", help=f"instead of {', '.join(PYTHONS)}")
    parser.add_argument("--pytest", action="append", help=f"instead of {', '.join(PYTESTS)}")
    parser.add_argument("--kernel", help="and one repository in a guest with this kernel")
    parser.add_argument("--only-guest", action="store_true", help="not the tests on this machine")
    given = parser.parse_args(argv)
    rows: list[tuple[str, str, str, str, float]] = []
    for name in given.python or PYTHONS:
        for pytest in given.pytest or PYTESTS:
            began = time.monotonic()
            here = guest = "-"
            program = pythons.found(name)
            if program is None:
                here = "no such Python"
            else:
                python = environment(program, pytest)
                if not given.only_guest:
                    here = "passed" if on_this_machine(python) else "failed"
                if given.kernel:
                    guest = "passed" if in_a_guest(python, given.kernel) else "failed"
            rows.append((Path(name).name, pytest, here, guest, time.monotonic() - began))
    print(f"\n{'python':12}{'pytest':10}{'here':16}{given.kernel or 'guest':10}seconds")
    for name, pytest, here, guest, seconds in rows:
        print(f"{name:12}{pytest:10}{here:16}{guest:10}{seconds:.0f}")
    return int(any("passed" not in row or "failed" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
