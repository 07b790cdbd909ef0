# SPDX-License-Identifier: MIT
"""`python -m tools.workflow [JOB...]`: a workflow's own commands on this machine, with one kernel
and one test file, so that a mistake in them is found before it is pushed.

The plan is rendered and narrowed to one kernel; each job's `run:` steps are run in this tree by
bash, as the runner does, in the order of the jobs' needs. What only GitHub has (checkout, caches,
set-up of Pythons) is named and left out, artifacts are copied, and so are installations of system
packages unless --install. With --action the steps of a composite action are run in the repository
that --directory names.

Exit status: 0 every command of the jobs named (all, if none is) succeeded; 1 one did not; 2 usage.
docs/ci.md says what this cannot prove.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .expressions import Context, condition, filled

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
KERNEL, TEST, MUTANT = "6.12", "tests/smoke/test_echo.py", "lab-check"

_OF_MAKE = {
    "MAKEFLAGS",
    "MFLAGS",
    "MAKEOVERRIDES",
    "MAKELEVEL",
    "ARGS",
    "T",
    "SLOW",
    "KERNEL",
    "AS",
    "REPEAT",
}
"""What `make workflow` was given is not for the make that a step calls."""


@dataclass
class Setting:
    """Where and how commands are run."""

    directory: Path
    temporary: Path
    install: bool
    more: Mapping[str, str]
    """Environment variables that narrow what make does."""
    event: str
    mutant: str = ""
    began: float = 0.0
    said: list[str] = field(default_factory=list)
    """What was left out or failed."""

    @property
    def artifacts(self) -> Path:
        """Where uploads go."""
        return self.temporary / "artifacts"


def jobs_of(workflow: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The jobs, each behind those that it needs."""
    jobs: dict[str, Mapping[str, Any]] = dict(workflow["jobs"])
    done: set[str] = set()
    while jobs:
        ready = [name for name, job in jobs.items() if needs_of(job) <= done]
        if not ready:
            raise SystemExit(f"these jobs need each other, or one that is not there: {[*jobs]}")
        for name in ready:
            yield name, jobs.pop(name)
            done.add(name)


def needs_of(job: Mapping[str, Any]) -> set[str]:
    """The jobs that a job needs."""
    needs = job.get("needs", [])
    return {needs} if isinstance(needs, str) else set(needs)


def legs_of(job: Mapping[str, Any], context: Context) -> list[dict[str, Any]]:
    """The combinations of a job's matrix; one without entries if it has none."""
    matrix = job.get("strategy", {}).get("matrix")
    if not matrix:
        return [{}]
    legs: list[dict[str, Any]] = [{}]
    for key, values in matrix.items():
        if key == "include":
            continue
        values = filled(values, context)
        legs = [{**leg, key: value} for leg in legs for value in values]
    include = [dict(one) for one in matrix.get("include", [])]
    return (legs if legs != [{}] else []) + include


def run_steps(
    steps: Sequence[Mapping[str, Any]],
    context: Context,
    setting: Setting,
    environment: Mapping[str, str],
) -> bool:
    """Run the steps of a job or a composite action; whether all succeeded."""
    well = True
    for number, step in enumerate(steps):
        name = str(step.get("name") or step.get("uses") or step["run"].splitlines()[0])
        context.well = well
        if not condition(str(step.get("if", "success()")), context):
            print(f"--- {name}: its condition does not hold", flush=True)
            continue
        outputs: dict[str, str] = {}
        if "uses" in step:
            _use(step, context, setting)
        elif "apt-get" in step["run"] and not setting.install:
            print(f"--- {name}: left out without --install", flush=True)
        else:
            print(f"--- {name}", flush=True)
            own = {k: str(filled(v, context)) for k, v in step.get("env", {}).items()}
            status, outputs = _shell(step["run"], {**environment, **own}, setting, number)
            if status:
                setting.said.append(f"{name}: status {status}")
                well = False
        if "id" in step:
            context.values["steps"][step["id"]] = {"outputs": outputs}
    return well


def _shell(
    script: str, environment: Mapping[str, str], setting: Setting, number: int
) -> tuple[int, dict[str, str]]:
    files = {
        name: setting.temporary / f"{name.lower()}-{number}"
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
    }
    for file in files.values():
        file.write_text("")
    words = {name: os.fspath(file) for name, file in files.items()}
    done = subprocess.run(
        # As GitHub's runner calls `shell: bash`.
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=setting.directory,
        env={
            **{name: value for name, value in os.environ.items() if name not in _OF_MAKE},
            "CI": "true",
            "RUNNER_TEMP": os.fspath(setting.temporary),
            **environment,
            **words,
            **setting.more,
        },
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if summary := files["GITHUB_STEP_SUMMARY"].read_text():
        print(f"step summary:\n{summary}", flush=True)
    lines = files["GITHUB_OUTPUT"].read_text().splitlines()
    return done.returncode, dict(line.partition("=")[::2] for line in lines)


def _use(step: Mapping[str, Any], context: Context, setting: Setting) -> None:
    action = str(step["uses"]).partition("@")[0]
    with_ = {key: str(filled(value, context)) for key, value in step.get("with", {}).items()}
    if action == "actions/upload-artifact":
        _upload(setting, with_["name"], setting.directory / with_["path"])
    elif action == "actions/download-artifact":
        place = setting.directory / with_["path"]  # which may be absolute
        shutil.rmtree(place, ignore_errors=True)
        for artifact in sorted(setting.artifacts.glob(with_["pattern"])):
            shutil.copytree(artifact, place / artifact.name)
        print(f"--- {action}: {with_['pattern']} into {with_['path']}", flush=True)
    else:
        print(f"--- {action}: GitHub's own, left out", flush=True)


def _upload(setting: Setting, name: str, path: Path) -> None:
    """Copy what this job has written."""
    place = setting.artifacts / name
    files = [file for file in path.rglob("*") if file.is_file()]
    fresh = [file for file in files if file.stat().st_mtime >= setting.began]
    if not fresh:
        setting.said.append(f"artifact {name}: nothing new in {path}")
    for file in fresh:
        target = place / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    print(f"--- actions/upload-artifact: {name}, {len(fresh)} files", flush=True)


def narrowed(plan: str, kernel: str, tests: Sequence[str]) -> str:
    """The plan with this one kernel and these tests."""
    whole = json.loads(plan)
    legs = [leg for leg in whole["legs"] if leg["name"] == kernel]
    if not legs:
        names = ", ".join(leg["name"] for leg in whole["legs"])
        raise SystemExit(f"{kernel} is not in the plan, which has {names}")
    return json.dumps({**whole, "legs": legs, "narrowed": [*tests]})


def run_workflow(path: Path, wanted: Sequence[str], kernel: str, setting: Setting) -> None:
    """Run the jobs of a workflow that are wanted, and the plan, which others need."""
    workflow = yaml.safe_load(path.read_text())
    if not isinstance(workflow, dict) or "jobs" not in workflow:
        raise SystemExit(f"{path} is no workflow: it has no jobs")
    if unknown := set(wanted) - set(workflow["jobs"]):
        raise SystemExit(f"{path.name} has no job {', '.join(sorted(unknown))}")
    results: dict[str, Any] = {}
    for name, job in jobs_of(workflow):
        if wanted and name not in wanted and name != "plan":
            continue
        values: dict[str, Any] = {
            "github": {"event_name": setting.event, "workflow": path.stem, "ref": "here"},
            "needs": {need: results[need] for need in results if need in needs_of(job)},
            "runner": {"temp": os.fspath(setting.temporary)},
            "env": {},
            "steps": {},
        }
        context = Context(values)
        print(f"=== {name}", flush=True)
        if "if" in job and not condition(str(job["if"]), context):
            print("its condition does not hold")
            results[name] = {"result": "skipped", "outputs": {}}
            continue
        legs = legs_of(job, context)
        values["matrix"] = next((leg for leg in legs if leg.get("slow") == "1"), legs[0])
        environment = {k: str(filled(v, context)) for k, v in job.get("env", {}).items()}
        environment.pop("LAB_CACHE", None)  # this machine's own
        setting.began = _now(setting)
        if name == "mutants":
            environment["ARGS"] = f"-k {setting.mutant}"
        well = run_steps(job["steps"], context, setting, environment)
        outputs = {k: str(filled(v, context)) for k, v in job.get("outputs", {}).items()}
        if well and "plan" in outputs:
            outputs["plan"] = narrowed(outputs["plan"], kernel, setting.more["T"].split())
        results[name] = {"result": "success" if well else "failure", "outputs": outputs}


def _now(setting: Setting) -> float:
    """This moment by the clock of the file system."""
    stamp = setting.temporary / "stamp"
    stamp.write_text("")
    return stamp.stat().st_mtime


def run_action(path: Path, inputs: Mapping[str, str], setting: Setting) -> None:
    """Run the steps of a composite action."""
    action = yaml.safe_load((path / "action.yml").read_text())
    if unknown := set(inputs) - set(action["inputs"]):
        raise SystemExit(f"{path.name} has no input {', '.join(sorted(unknown))}")
    given = {name: str(one.get("default", "")) for name, one in action["inputs"].items()}
    values: dict[str, Any] = {
        "github": {"event_name": setting.event, "action_path": os.fspath(path.resolve())},
        "inputs": {**given, **inputs},
        "runner": {"temp": os.fspath(setting.temporary)},
        "env": {},
        "steps": {},
    }
    setting.began = _now(setting)
    run_steps(action["runs"]["steps"], Context(values), setting, {})


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", nargs="*")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW)
    parser.add_argument("--kernel", default=KERNEL, help=f"({KERNEL})")
    parser.add_argument("--test", default=TEST, help=f"({TEST})")
    parser.add_argument("--mutant", default=MUTANT, help=f"({MUTANT})")
    parser.add_argument("--event", default="push", help="whose conditions hold (push)")
    parser.add_argument("--install", action="store_true", help="also the system's packages")
    parser.add_argument("--action", type=Path, help="a composite action instead")
    parser.add_argument("--directory", type=Path, default=ROOT, help="of --action: where it runs")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="workflow-") as temporary:
        setting = Setting(
            directory=arguments.directory,
            temporary=Path(temporary),
            install=arguments.install,
            more={},
            event=arguments.event,
        )
        if arguments.action is not None:
            inputs = dict(one.partition("=")[::2] for one in arguments.input)
            run_action(arguments.action, inputs, setting)
        else:
            setting.more = {"T": arguments.test}  # which make takes from the environment
            setting.mutant = arguments.mutant
            run_workflow(arguments.workflow, arguments.job, arguments.kernel, setting)
    for sentence in setting.said:
        print(f"failed: {sentence}")
    return 1 if setting.said else 0


if __name__ == "__main__":
    sys.exit(main())
