# SPDX-License-Identifier: MIT
"""The workflows: what they may do, what they are pinned to, that nothing of them can be left out of
the check, and that their own commands work here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errata.cli import share
from lab.errors import UsageError
from lab.project.workflow import TEXT
from tests.lab.suite_support import Little
from tools.expressions import Context, condition, evaluated, filled
from tools.workflow import Setting, run_action

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTION = ROOT / ".github/actions/lab/action.yml"
PINNED = re.compile(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOT_OF_THE_COMMIT = {"lock"}
"""Jobs that say nothing about this commit, so that the check leaves them out."""


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every step of a workflow or an action."""
    if "runs" in document:
        yield from document["runs"]["steps"]
    for job in document.get("jobs", {}).values():
        yield from job["steps"]


def test_every_action_is_pinned_and_the_same_everywhere() -> None:
    """By commit, with the release beside it; a tag can be moved."""
    found: dict[str, set[tuple[str, str]]] = {}
    texts = {str(path): path.read_text() for path in [*WORKFLOWS, ACTION]}
    for place, text in {**texts, "lab init --workflow": TEXT}.items():
        for line in text.splitlines():
            if "uses:" in line and "{repository}" not in line:
                pinned = PINNED.search(line)
                assert pinned is not None, f"{place}: {line}"
                found.setdefault(pinned[1].split("/")[1], set()).add((pinned[2], pinned[3]))
    assert {"checkout", "cache", "upload-artifact", "download-artifact"} <= found.keys()
    assert [] == [name for name, pins in found.items() if len(pins) != 1]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read(path: Path) -> None:
    """And no job asks for more; no matrix hides what comes behind its first failure."""
    workflow = read(path)
    assert {"contents": "read"} == workflow["permissions"]
    for name, job in workflow["jobs"].items():
        assert "permissions" not in job, name
        assert job["timeout-minutes"] <= 360, name
        if "strategy" in job:
            assert job["strategy"]["fail-fast"] is False, name
    for step in steps(workflow):
        if str(step.get("uses", "")).startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_check_waits_for_every_job(path: Path) -> None:
    """A job that nobody waits for could be skipped or red unseen."""
    jobs = read(path)["jobs"]
    check = jobs["check"]
    assert "always()" == check["if"]
    assert set(jobs) - {"check"} - NOT_OF_THE_COMMIT == set(check["needs"])


def test_pull_requests_only_read_the_cache() -> None:
    saves = [
        step
        for path in [*WORKFLOWS, ACTION]
        for step in steps(read(path))
        if "actions/cache/save@" in str(step.get("uses"))
    ]
    assert 2 == len(saves)
    for step in saves:
        for event, expected in (("pull_request", False), ("push", True)):
            values = {"github": {"event_name": event}, "steps": {}, "matrix": {}}
            assert expected is condition(step["if"], Context(values))
    used = "\n".join(path.read_text() for path in [*WORKFLOWS, ACTION])
    assert "uses: actions/cache@" not in used


def test_pushes_run_what_the_landing_script_runs() -> None:
    """Slow tests, mutants, gate and the suite in guests."""
    told = (ROOT / ".ci/run").read_text()
    commands = [str(step.get("run", "")) for step in steps(read(WORKFLOWS[0]))]
    for line in re.findall(r"^step \d+ (make .*)$", told, re.MULTILINE):
        words = set(line.split()) - {"SLOW=1", "KERNEL=6.12"}
        assert any(words <= set(command.split()) for command in commands), line
    include = read(WORKFLOWS[0])["jobs"]["host"]["strategy"]["matrix"]["include"]
    assert "1" in {one["slow"] for one in include}
    assert any("SLOW=1" in command and "make lab" in command for command in commands)


def test_nightly_shards_are_whole() -> None:
    """Each suite and program of the conformance run is in one part, each share of a whole run."""
    jobs = read(ROOT / ".github/workflows/nightly.yml")["jobs"]
    from tests.conformance import __main__ as runner
    from tests.conformance import suites
    from tests.lab import pythons

    parts = jobs["conformance"]["strategy"]["matrix"]["part"]
    names = " ".join(parts).split()
    every = {"cpython", *(suite.package for suite in suites.SUITES), *runner.PROGRAMS}
    assert sorted(every) == sorted(names)
    versions = jobs["pythons"]["strategy"]["matrix"]["python"]
    assert list(pythons.PYTHONS) == [f"python{version}" for version in versions]
    shares = jobs["errata"]["strategy"]["matrix"]["share"]
    assert [f"{number}/{len(shares)}" for number in range(1, len(shares) + 1)] == shares
    kernels: Any = list(range(10))
    cut: Any = [share(kernels, (number, len(shares))) for number in range(1, len(shares) + 1)]
    assert sorted(kernels) == sorted(kernel for part in cut for kernel in part)
    with pytest.raises(UsageError, match="--share 11/12: of 10 releases none is in that share"):
        share(kernels, (11, 12))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("github.event_name != 'pull_request' && matrix.leg.name", "6.12"),
        ("!success() || fromJSON('{\"a\": [1]}').a", [1]),
        ("format('k-{0}-{1}', matrix.leg.name, steps.no.outputs.thing)", "k-6.12-"),
        ("toJSON(matrix)", '{"leg": {"name": "6.12"}}'),
        ("(true == false) == false", True),
    ],
)
def test_expressions(text: str, value: object) -> None:
    context = Context(
        {"github": {"event_name": "push"}, "matrix": {"leg": {"name": "6.12"}}, "steps": {}}
    )
    assert value == evaluated(text, context)
    assert "k-6.12" == filled("k-${{ matrix.leg.name }}", context)


@pytest.mark.parametrize("text", ["", "nothing.here", "a b", "hashFiles('x')", "'open", "(true"])
def test_expression_that_is_not_understood(text: str) -> None:
    with pytest.raises(ValueError):
        evaluated(text, Context({"a": "", "b": ""}))


def test_condition_without_a_state_wants_success() -> None:
    context = Context({"github": {"event_name": "push"}}, well=False)
    assert not condition("github.event_name == 'push'", context)
    assert condition("always()", context)
    assert condition("${{ failure() && github.event_name == 'push' }}", context)


def lab(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_init_writes_a_workflow_of_ten_lines(tmp_path: Path) -> None:
    """With the table, which a second workflow leaves as it is; zizmor has nothing to say of it."""
    done = lab(tmp_path, "init", "--workflow", f"somebody/kernels@{COMMIT}")

    assert (0, "") == (done.returncode, done.stderr)
    place = tmp_path / ".github/workflows/lab.yml"
    assert len(place.read_text().splitlines()) <= 10
    workflow = read(place)
    used = [step["uses"] for step in workflow["jobs"]["lab"]["steps"]]
    assert f"somebody/kernels/.github/actions/lab@{COMMIT}" == used[1]
    assert {"contents": "read"} == workflow["permissions"]
    assert "kernels = " in (tmp_path / "lab.toml").read_text()
    zizmor: list[str | Path] = [
        Path(sys.executable).with_name("zizmor"),
        "--offline",
        "--quiet",
        place,
    ]
    told = subprocess.run(zizmor, capture_output=True, text=True, check=False)
    assert 0 == told.returncode, told.stdout + told.stderr

    again = lab(tmp_path, "init", "--workflow", f"somebody/kernels@{COMMIT}")
    assert 2 == again.returncode
    assert "lab.yml is there already" in again.stderr
    place.unlink()
    assert 0 == lab(tmp_path, "init", "--workflow", f"somebody/kernels@{COMMIT}").returncode


@pytest.mark.parametrize(
    "uses", ["somebody/kernels@v1", "kernels@" + COMMIT, COMMIT, "a/b@" + "x" * 40]
)
def test_init_wants_a_commit(tmp_path: Path, uses: str) -> None:
    done = lab(tmp_path, "init", "--workflow", uses)
    assert 2 == done.returncode
    assert f"--workflow {uses} does not name the lab's repository and a commit" in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_the_plans_job_and_the_check_here(tmp_path: Path) -> None:
    """The script that runs a workflow's own commands: a job that fails is told, and the check of
    what never ran is red."""
    workflow = tmp_path / "w.yml"
    plan = json.dumps({"version": 1, "narrowed": [], "legs": [{"name": "6.12"}, {"name": "6.1"}]})
    workflow.write_text(f"""
jobs:
  check:
    if: always()
    needs: [plan, lab]
    steps:
      - env: {{PLAN: "${{{{ needs.plan.outputs.plan }}}}", NEEDS: "${{{{ toJSON(needs) }}}}"}}
        run: |
          printf '%s' "$PLAN" > "$RUNNER_TEMP/plan.json"
          {sys.executable} -m lab check "$RUNNER_TEMP/plan.json" --jobs "$NEEDS"
  lab:
    needs: plan
    strategy: {{matrix: {{leg: "${{{{ fromJSON(needs.plan.outputs.plan).legs }}}}"}}}}
    env: {{NAME: "${{{{ matrix.leg.name }}}}"}}
    steps:
      - uses: actions/checkout@x
      - name: Set up
        run: apt-get nonsense
      - run: echo "kernel $NAME, tests $T, rest ${{ARGS-none}} ${{MAKEFLAGS-none}}"; exit 7
      - run: echo never
  plan:
    outputs: {{plan: "${{{{ steps.plan.outputs.plan }}}}"}}
    steps:
      - id: plan
        run: |
          echo 'plan={plan}' >> "$GITHUB_OUTPUT"
""")
    done = subprocess.run(
        [sys.executable, "-m", "tools.workflow", "--workflow", workflow, "--test", "a.py"],
        cwd=ROOT,
        env={**os.environ, "ARGS": "not for a step", "MAKEFLAGS": "-n"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode, done.stderr
    order = re.findall(r"^=== (\w+)$", done.stdout, re.MULTILINE)
    assert ["plan", "lab", "check"] == order
    assert "kernel 6.12, tests a.py, rest none none\n" in done.stdout
    assert "never\n" not in done.stdout
    assert "--- Set up: left out without --install" in done.stdout
    assert "job lab: job failed: its result is 'failure'" in done.stdout
    assert "6.12: missing: no results came of it" in done.stdout
    assert "6.1:" not in done.stdout
    assert "status 7" in done.stdout


STAND_IN = """#!/bin/bash
case $1 in
kernels) echo "/cache/6.12" ;;
test)
  {python} -m lab "$@" -p tests.lab.hostile.plugin; status=$?
  sed -i "s/$(uname -r)/6.12.107-fake/" "$5"/latest/results.json || true
  exit $status ;;
*) exec {python} -m lab "$@" ;;
esac
"""
"""The lab as the action would have installed it, with fake guests, whose kernel is this one's."""


def test_nothing_is_kept_before_it_is_known_what() -> None:
    """An installation that fails must not make an artifact of the whole machine."""
    [step] = [one for one in steps(read(ACTION)) if "upload-artifact" in str(one.get("uses"))]
    for outputs, kept in (({}, False), ({"results": "/tmp/lab-results"}, True)):
        context = Context({"steps": {"plan": {"outputs": outputs}}}, well=False)
        assert kept is condition(step["if"], context)


def run_its_steps(little: Little, where: Path, arguments: str) -> bool:
    """Run the action's own commands but for the installation; whether all succeeded."""
    action = read(ACTION)
    action["runs"]["steps"] = [
        step for step in steps(action) if "pip" not in str(step.get("run", ""))
    ]
    place, temporary = where / "action", where / "temporary"
    place.mkdir()
    (place / "action.yml").write_text(yaml.safe_dump(action))
    stand_in = temporary / "kernel-lab/bin/lab"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    setting = Setting(little.root, temporary, False, little.environment(), "push")
    run_action(place, {"arguments": arguments, "debian-mirror": "http://none.invalid"}, setting)
    return not setting.said


def test_words_of_the_actions_arguments(
    little: Little, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An expression is one word, options stand where somebody put them, and the check takes the run
    for that of the plan."""
    little.tests("def test_one(): pass\ndef test_two(): pass\ndef test_three(): assert False\n")

    well = run_its_steps(little, tmp_path, 'tests/test_it.py -x --tb short -k "one or two"')

    told = capfd.readouterr().out
    assert well, told
    assert "| 6.12 | 6.12.107-fake | 2 of 2 |" in told
    assert "lab: exit 0 (proved): 1 of 1 kernels" in told


def test_arguments_of_the_action_that_cannot_be_split(
    little: Little, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One sentence, no run, and the check is red."""
    assert not run_its_steps(little, tmp_path, "-k 'one")
    told = capfd.readouterr()
    assert "the input arguments cannot be split as in a shell: No closing quotation" in told.err
    assert "Traceback" not in told.out + told.err
    assert "exit 0" not in told.out
    assert not (little.root / "lab-results").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)  # pip, an image of a new environment, and a guest
def test_composite_action_in_another_repository(tmp_path: Path) -> None:
    """Its own commands, from the installation to the check, with a real guest."""
    repository = tmp_path / "theirs"
    repository.mkdir()
    (repository / "test_it.py").write_text(
        "import os\ndef test_kernel(): assert os.uname().release.startswith('6.12')\n"
    )
    shutil.copy(ROOT / "tests/kernels/kernels.lock", repository)
    (repository / "lab.toml").write_text('kernels = ["6.12"]\nlock = "kernels.lock"\n')
    words = ["--action", str(ACTION.parent), "--directory", str(repository)]

    done = subprocess.run(
        [sys.executable, "-m", "tools.workflow", *words, "--event", "pull_request"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    told = done.stdout + done.stderr
    assert 0 == done.returncode, told
    assert "lab: exit 0 (proved): 1 of 1 kernels" in told
    assert re.search(r"\| 6\.12 \| 6\.12\.\S+ \| 1 of 1 \| (kvm|tcg) \| 0 \|", told), told
    assert "Keep the kernel packages: its condition does not hold" in told
