# SPDX-License-Identifier: MIT
"""The line of each red cell, typed into a shell: the failure comes again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.suite_support import LIMIT_SECONDS, Little

pytestmark = pytest.mark.lab

FAKES = "-p tests.lab.hostile.plugin"
BAD = """
def test_good(): pass

@pytest.mark.parametrize("x", ["a b", "$HOME 'and' \\"more\\" # `id`"])
def test_words(x): assert not x

@pytest.mark.slow
def test_old(): assert os.environ["LAB_FAKE_UPSTREAM"] != "6.1.176"

def test_dies():
    if os.environ["LAB_FAKE_UPSTREAM"] == "6.12.107": os.kill(os.getpid(), 9)
"""
MAKEFILE = f"""\
.PHONY: lab
export KERNEL SLOW T
lab:
\t{sys.executable} -m lab test --kernel "$$KERNEL" $${{T-}} $(ARGS)
"""
"""As that of this repository, of which a node id's characters need the most care."""


def legs(results: Path) -> dict[str, dict[str, Any]]:
    """What a run says, by kernel."""
    found = json.loads((results / "results.json").read_text())["legs"]
    return {name: leg for name, leg in found.items() if leg["kernel"] is not None}


def red(results: Path) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Verdict, reason and line of each test that is not good, by kernel and id."""
    return {
        (kernel, name): (one["verdict"], one["why"], one["reproduce"])
        for kernel, leg in legs(results).items()
        for name, one in leg["verdicts"].items()
        if one["verdict"] not in ("passed", "skipped", "xfailed")
    }


@pytest.mark.parametrize("by_make", [True, False], ids=["make", "lab"])
def test_line_of_each_red_cell_brings_the_failure_again(little: Little, by_make: bool) -> None:
    """The same id on the same kernel with the same verdict and reason, and no other test."""
    little.write("Makefile", MAKEFILE)
    if not by_make:
        settings = little.root / "pyproject.toml"
        settings.write_text(settings.read_text().replace("by-make = true\n", ""))
    little.tests(BAD)
    told = little.environment(PYTEST_ADDOPTS=f"-p pytest_timeout {FAKES}", SLOW="1")
    added = {name: told[name] for name in ("PYTEST_ADDOPTS", "SLOW")}
    ran = little.run("lab", "test", "--kernel=6.12", "--kernel=6.1", **added)
    assert 1 == ran.code, ran.output
    first = red(ran.files)
    kinds = [("6.12.107", "lost"), ("6.12.107", "failed"), ("6.1.176", "failed")]
    assert {(kernel, one[0]) for (kernel, _), one in first.items()} == set(kinds)
    assert 6 == len(first)

    del told["SLOW"]  # the line says so where it is needed
    for (kernel, name), (verdict, why, line) in first.items():
        if kernel == "6.1.176" and "[" in name:
            continue  # as on the other kernel
        again = subprocess.run(
            ["/bin/sh", "-c", line.replace("python -m lab", f"{sys.executable} -m lab")],
            cwd=little.root,
            env=told,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert again.returncode in (1, 2, 3), again.stdout + again.stderr
        ended = (little.root / "lab-results/latest/results.json").exists()
        assert ended, f"{line}: {again.stdout}{again.stderr}"
        assert {(kernel, name): (verdict, why, line)} == red(little.root / "lab-results/latest")
        (leg,) = legs(little.root / "lab-results/latest").values()
        assert [name] == list(leg["verdicts"])
