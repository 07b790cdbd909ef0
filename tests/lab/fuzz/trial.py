# SPDX-License-Identifier: MIT
"""One scenario before the real host side, in this process, and what must hold of it."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import lab.rules.contract
import lab.suite.plugin
from lab import project
from lab.errors import GuestLost
from lab.facts.verdicts import Tally, Verdict, conclude, good
from lab.kernels import Kernel
from lab.remote import sending, tree
from lab.vm import Accel, AccelKind, Guest
from lab.vm.console import Console
from lab.vm.link import Link
from lab.wishes import Wishes
from tests.lab.suite_support import leg_of

from .agent import Agent, ScriptedChannel
from .scenario import Scenario
from .world import DOUBTED, RELEASE, World

LIMIT_S = 60
"""So many real seconds one scenario may take; it needs a hundredth of one."""
KERNEL = Kernel(
    series="6.12",
    upstream="6.12.107",
    package="6.12.107-1",
    release=RELEASE,
    source="fuzz",
    locked=True,
    verified_by="nobody",
)
_SETTINGS = """\
[tool.pytest.ini_options]
[tool.lab]
kernels = ["6.12"]
include = ["tests"]
plugins = []
probe = ["python", "-m", "probe"]
mask-variable = "IOXIDE_CAPS"
contract = "expected.toml"
skips-need-proof = true
"""
_CONTRACT = '"6.12".INC = "yes, measured"\n"6.12".NAPI = "no, measured"\n'
_NO_PLUGINS = ("faulthandler", "cacheprovider", "unraisableexception", "threadexception", "timeout")


@dataclass(frozen=True, slots=True)
class Ran:
    """A scenario that was tried."""

    code: int | None
    """None if it did not end."""
    output: str
    results: Mapping[str, Any] | None
    wrong: list[str]
    """What does not hold, as sentences."""


class Hung(BaseException):
    """The scenario took longer than any may."""


class FuzzLab:
    """Gives guests that play a scenario, and is the plugin that offers them."""

    def __init__(self, world: World, hashes: Mapping[str, str]) -> None:
        self.world = world
        self._hashes = hashes
        self._boots = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_lab_resolve(self) -> Kernel:
        """There is one kernel."""
        return KERNEL

    @pytest.hookimpl(tryfirst=True)
    def pytest_lab_guests(self) -> FuzzLab:
        """These guests."""
        return self

    def prepare(self, results: Path) -> None:
        """There is nothing to fetch."""

    def side_by_side(self, others: Iterable[Wishes] = ()) -> int:  # noqa: ARG002
        """As the scenario says, which the command line repeats."""
        return self.world.scenario.guests

    def at_most(self, others: Iterable[Wishes] = ()) -> int:  # noqa: ARG002
        """They need no room."""
        return self.world.scenario.guests

    @contextmanager
    def boot(
        self,
        results: Path,
        *,
        wishes: Wishes,  # noqa: ARG002
        interrupt: int | None = None,  # noqa: ARG002
    ) -> Iterator[Guest]:
        """As Lab.boot."""
        nonce = f"{self._boots:016}"
        self._boots += 1
        console = Console(results / "console.log")
        agent = Agent(self.world, console.path, nonce, self._hashes)
        agent.come("boot")

        def lost(cause: str) -> GuestLost:
            return GuestLost(cause, console_tail=console.tail())

        if agent.dead:
            raise lost("the agent did not speak")
        yield Guest(
            kernel=KERNEL,
            accel=Accel(AccelKind.TCG, "none", "none", "a scripted guest"),
            nonce=nonce,
            uname=RELEASE,
            boot_seconds=1.0,
            slowdown=1.0,
            memlock=-1,
            console=console,
            link=Link(ScriptedChannel(agent), lost),  # type: ignore[arg-type]
        )


class Stage:
    """A little repository in which scenarios are tried, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path, text in {
            "pyproject.toml": _SETTINGS,
            "expected.toml": _CONTRACT,
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self._contract = lab.rules.contract.read(root / "expected.toml")
        (root / "tests").mkdir()
        (root / "scratch").mkdir()
        # Two files, because two guests share them; the files never change, whatever is selected.
        for name in ("a", "b"):
            text = "".join(f"def test_{n}(): pass\n" for n in range(3))
            (root / f"tests/test_fuzzed_{name}.py").write_text(text)

    def names(self, scenario: Scenario) -> tuple[str, ...]:
        """The ids of a scenario's tests: the first file has the odd one."""
        half = (len(scenario.outcomes) + 1) // 2 if scenario.guests > 1 else 3
        ids = [
            f"tests/test_fuzzed_{name}.py::test_{n}"
            for name, count in (("a", half), ("b", 3))
            for n in range(count)
        ]
        return tuple(ids[: len(scenario.outcomes)])

    def play(self, scenario: Scenario) -> list[str]:
        """Try one scenario; what does not hold of it, as sentences."""
        return self.run(scenario).wrong

    def run(self, scenario: Scenario) -> Ran:
        """Try one scenario."""
        world = World(scenario, self.names(scenario))
        before = _held(self.root)
        written = io.BytesIO()
        output = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
        with self._surroundings(world, output) as run:
            try:
                with _limit():
                    code: int | None = int(run())
            except Hung:
                code = None
        text = written.getvalue().decode()
        try:
            results = leg_of(self.root / "lab-results/latest")
            log = "".join(
                path.read_text(errors="backslashreplace")
                for path in (self.root / "lab-results/latest/").rglob("kernel.log")
            )
        except FileNotFoundError:
            results, log = None, ""
        shutil.rmtree(self.root / "lab-results", ignore_errors=True)
        left = sorted(_held(self.root) - before)
        wrong = [*world.found, *judged(world, code, text, results, log, left)]
        return Ran(code, text, results, wrong)

    @contextmanager
    def _surroundings(self, world: World, output: io.TextIOWrapper) -> Iterator[Any]:
        time = SimpleNamespace(monotonic=world.clock.monotonic)
        whole, extension = sending.of(project.read(self.root)).hashes()
        hashes = {
            "tree_sha256": whole,
            "extension_sha256": extension,
            "bytecode_sha256": tree.hashes({})[0],
        }
        arguments = [
            "--rootdir=.", "-c", "pyproject.toml", "-s", "--color=no",
            *(f"-pno:{name}" for name in _NO_PLUGINS),
            "--lab-kernel=6.12", f"--lab-guests={world.scenario.guests}", *world.names,
        ]  # fmt: skip
        with contextlib.ExitStack() as stack:
            for module in ("lab.vm.link", "lab.vm.guest", "lab.suite.worker", "lab.remote.process"):
                stack.enter_context(mock.patch(f"{module}.time", time))
            stack.enter_context(mock.patch.object(tree, "bytecode", return_value={}))
            stack.enter_context(mock.patch.object(tree, "pack", return_value=b"a tree"))
            stack.enter_context(
                mock.patch.object(lab.rules.contract, "read", return_value=self._contract)
            )
            stack.enter_context(
                mock.patch.dict(
                    os.environ,
                    {
                        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                        "PYTEST_ADDOPTS": "",
                        "CI": "1",
                        "COLUMNS": "200",
                        "TMPDIR": str(self.root / "scratch"),
                        "LAB_CACHE": str(self.root / "scratch"),
                    },
                )
            )
            for name in ("IOXIDE_CAPS", "SLOW", "PYTEST_CURRENT_TEST"):
                os.environ.pop(name, None)
            stack.callback(os.chdir, Path.cwd())
            os.chdir(self.root)
            stack.callback(setattr, sys, "path", list(sys.path))
            # The next trial's tests have the same names and other files.
            for name in [name for name in sys.modules if name.startswith("test_fuzzed")]:
                del sys.modules[name]
            stack.enter_context(contextlib.redirect_stdout(output))
            stack.enter_context(contextlib.redirect_stderr(output))
            plugins = [lab.suite.plugin, FuzzLab(world, hashes)]
            yield lambda: pytest.main(arguments, plugins=plugins)


def judged(
    world: World,
    code: int | None,
    output: str,
    results: Mapping[str, Any] | None,
    log: str,
    left: Sequence[str],
) -> list[str]:
    """What does not hold, as sentences."""
    if code is None:
        return [f"hung: no end within {LIMIT_S} s; {output[-500:]}"]
    wrong = []
    if left:
        wrong.append(f"left over: {', '.join(left)}")
    if "Traceback" in output or "INTERNALERROR" in output:
        wrong.append(f"a traceback where a sentence belongs: {output[-3000:]}")
    if results is None:
        return [*wrong, f"there is no results.json of a run that ended with {code}: {output}"]
    verdicts = {name: found["verdict"] for name, found in results["verdicts"].items()}
    if list(verdicts) != list(world.names):
        wrong.append(f"not each id has one verdict: {verdicts}")
    book = conclude(
        Tally(
            {name: Verdict(verdict) for name, verdict in verdicts.items()},
            problems=results["problems"],
            faults=results["faults"],
        )
    )
    if not code == results["exit"]["code"] == book.code:
        wrong.append(f"the exit code {code} does not follow from the book: {book}")
    for name, verdict in verdicts.items():
        if verdict in ("passed", "skipped") and world.said.get(name) not in (verdict, DOUBTED):
            wrong.append(f"{name} is {verdict}, and no guest that was believed said so")
    if code == 0:
        wrong += [f"exit 0, although {what}" for what in world.wrongs]
        if not all(map(good, verdicts.values())) or "passed" not in verdicts.values():
            wrong.append(f"exit 0 with the verdicts {verdicts}")
    honest = not world.wrongs and all(d.act == "say" for d in world.scenario.deeds)
    outcomes = world.scenario.outcomes
    due = 1 if "failed" in outcomes else 0 if "passed" in outcomes else 3
    if honest and code != due:
        wrong.append(f"an honest run ended with {code}, not with {due}: {output[-1500:]}")
    everything = output + json.dumps(results)
    for pieces in world.complaints:
        line = " ".join(pieces)
        if code != 1:
            wrong.append(f"exit {code}, although the kernel complained: {line}")
        if not any(piece in everything for piece in pieces):
            kept = "only in kernel.log" if any(piece in log for piece in pieces) else "nowhere"
            wrong.append(f"a complaint disappeared, it is {kept}: {line}")
    return list(dict.fromkeys(wrong))


def _held(root: Path) -> set[str]:
    """The threads, descriptors, processes and files that there are now."""
    gc.collect(0)
    found = {f"the thread {thread.name}" for thread in threading.enumerate()}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if not target.startswith("/proc/"):
                found.add(f"the descriptor {descriptor.name}, {target}")
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            children = (task / "children").read_text().split()
            found |= {f"the process {child}" for child in children}
    found |= {
        f"the file {path.relative_to(root)}"
        for path in root.rglob("*")
        if not {"__pycache__", "bytecode"} & {*path.parts}  # compiled modules are kept
    }
    return found


@contextmanager
def _limit() -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Hung

    before = signal.signal(signal.SIGALRM, over)
    others = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)  # pytest-timeout's, in a test
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)


@contextmanager
def stage() -> Iterator[Stage]:
    """A stage, which is gone when the block is left."""
    with tempfile.TemporaryDirectory(prefix="lab-fuzz-") as root:
        made = Stage(Path(root).resolve())
        made.play(Scenario(("passed",), 1, ()))  # what is made once (the cache's locks) is there
        yield made
