# SPDX-License-Identifier: MIT
"""The examples that the documents walk through: they build, and are what their README says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lab.facts.probed import Probed
from lab.programs.judgement import judge
from lab.programs.listing import programs_of
from lab.programs.running import run
from lab.programs.tap import State
from lab.project import check, read

from .suite_support import REPOSITORY, leg_of

pytestmark = pytest.mark.lab

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an example, as in a repository of its own."""
    left_out = shutil.ignore_patterns("build", "*.so", "*.egg-info", "__pycache__", "lab-results")
    root = tmp_path / str(request.param)
    shutil.copytree(EXAMPLES / str(request.param), root, ignore=left_out)
    done("git", "init", "-q", cwd=root)
    return root


def done(*words: str, cwd: Path, **more: str) -> str:
    """What a command printed that ended well."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "LAB_", "MAKE"))}
    ended = subprocess.run(
        words, cwd=cwd, env=kept | more, capture_output=True, text=True, timeout=300, check=False
    )
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return ended.stdout


def table_of_readme(root: Path) -> object:
    """The settings that the README shows."""
    blocks = re.findall(r"```toml\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert 1 == len(blocks)
    return tomllib.loads(blocks[0])


@pytest.mark.parametrize("example", ["lab-c"], indirect=True)
def test_c_programs_build_and_say_what_the_readme_says(example: Path) -> None:
    done("make", cwd=example)
    done("make", "check", cwd=example)
    project = read(example)
    check(project)
    tests = programs_of(project, limit=None)

    assert table_of_readme(example) == tomllib.loads((example / "lab.toml").read_text())
    assert ["unit/mseal", "unit/seals", "unit/wakeups"] == [test.name for test in tests]
    for test in tests:
        ended = run(example / test.path, directory=example, seconds=60.0)
        judged = judge(test.format, ended.status, ended.said)
        # This machine's kernel may be older than 6.10.
        fine = (State.PASSED, State.SKIPPED) if test.name == "unit/mseal" else (State.PASSED,)
        assert judged.state in fine, judged.why


@pytest.mark.parametrize("example", ["lab-python"], indirect=True)
def test_python_package_builds_and_its_probe_speaks(example: Path) -> None:
    done(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=example)
    source = {"PYTHONPATH": str(example / "src")}
    said = done(sys.executable, "-m", "lastwords.probe", cwd=example, **source)
    project = read(example)
    check(project)
    settings = tomllib.loads((example / "pyproject.toml").read_text())

    assert {"tool": {"lab": settings["tool"]["lab"]}} == table_of_readme(example)
    probe = Probed.from_json(said)
    assert ["PIDFD_THREAD"] == list(probe.findings)
    assert probe.findings["PIDFD_THREAD"].observed is not None
    assert {"6.1", "6.12"} == tomllib.loads((example / project.contract).read_text()).keys()
    assert os.uname().release == json.loads(said)["release"]


@pytest.mark.parametrize("example", ["lab-c"], indirect=True)
def test_c_programs_travel_though_git_ignores_them(example: Path) -> None:
    done("make", cwd=example)
    words = (sys.executable, "-m", "lab", "test", "--kernel", "6.12")
    fake = {"PYTHONPATH": str(REPOSITORY), "LAB_FAKE": "{}", "CI": "1"}
    said = done(*words, "-p", "tests.lab.hostile.plugin", cwd=example, **fake)
    results = leg_of(example / "lab-results/latest")

    assert {"unit/mseal", "unit/seals", "unit/wakeups"} == results["verdicts"].keys()
    assert "passed" == results["verdicts"]["unit/seals"]["verdict"]
    assert 5 == len(results["verdicts"]["unit/wakeups"]["subtests"])
    assert said.rstrip().splitlines()[-1].startswith("lab: exit 0 (proved)")


@pytest.mark.parametrize("example", ["lab-c"], indirect=True)
def test_program_may_skip_where_no_proof_is_asked_for(example: Path) -> None:
    source = example / "tests/mseal.c"
    source.write_text(source.read_text().replace("syscall(SYS_mseal,", "syscall(9999,"))
    done("make", cwd=example)
    words = (sys.executable, "-m", "lab", "test", "--kernel", "6.12")
    fake = {"PYTHONPATH": str(REPOSITORY), "LAB_FAKE": "{}", "CI": "1"}
    said = done(*words, "-p", "tests.lab.hostile.plugin", cwd=example, **fake)
    results = leg_of(example / "lab-results/latest")
    found = results["verdicts"]["unit/mseal"]

    assert ("skipped", "this kernel has no mseal(2)") == (found["verdict"], found["why"])
    assert said.rstrip().splitlines()[-1].startswith("lab: exit 0 (proved)")


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({}, id="no-file"),
        pytest.param({"pyproject.toml": "[tool.ruff]\n", "tox.ini": "[tox]\n"}, id="no-section"),
    ],
)
@pytest.mark.parametrize("example", ["lab-c"], indirect=True)
def test_settings_of_a_directory_above_are_not_the_repositorys(
    example: Path, own: dict[str, str]
) -> None:
    """Neither where it has no file that pytest looks into, nor where it says nothing to pytest."""
    above = example.parent
    for name, text in own.items():
        (example / name).write_text(text)
    (above / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (above / "conftest.py").write_text("raise RuntimeError('of another repository')\n")
    program = example / "build/passes"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 1..1\necho ok 1\n")
    program.chmod(0o755)
    words = (sys.executable, "-m", "lab", "test", "--kernel", "6.12")
    fake = {"PYTHONPATH": str(REPOSITORY), "LAB_FAKE": "{}", "CI": "1"}
    said = done(*words, "-p", "tests.lab.hostile.plugin", cwd=example, **fake)

    assert said.rstrip().splitlines()[-1].startswith("lab: exit 0 (proved)")
