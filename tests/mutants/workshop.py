# SPDX-License-Identifier: MIT
"""A copy of the tree in which one file at a time is spoilt, built and tried."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.table import Mutant

_RECORDER = Path(__file__).with_name("recorder.py")
_CI = {"CI", "BUILD_NUMBER"}
"""With one of them in its environment, pytest (8.4) words the messages of assertions in full."""
_BUILD_LIMIT = 300.0

# Loading the plugins of hypothesis and anyio takes twice as long as the rest of a short run, and
# in a guest ten seconds; the tests that use hypothesis do without its.
PYTEST = (
    *("-q", "--color=no", "-p", "mutants_recorder", "-p", "no:cacheprovider"),
    *("-p", "no:anyio", "-p", "no:hypothesispytest"),
)
"""How pytest is called for a mutant, wherever."""


class BuildError(Exception):
    """The tree, or the mutant in it, does not compile; the message is the compiler's."""


class Stopped(Exception):
    """The run was interrupted."""


@dataclass(slots=True)
class Outcome:
    """What one test did."""

    started: bool = False
    ended: bool = False
    outcomes: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    text: str = ""

    @property
    def passed(self) -> bool:
        """It ran to its end, and every phase of it passed."""
        return self.ended and set(self.outcomes) == {"passed"}

    @property
    def failed(self) -> bool:
        return "failed" in self.outcomes

    @property
    def skipped(self) -> bool:
        """It was skipped, and nothing of it failed."""
        return self.ended and "skipped" in self.outcomes and not self.failed

    @property
    def message(self) -> str:
        return "; ".join(self.messages)


@dataclass(frozen=True, slots=True)
class Run:
    """One pytest process: what its tests did, and how it ended."""

    outcomes: Mapping[str, Outcome]
    killed: bool
    """It did not end in time."""
    status: int
    output: str
    seconds: float

    def of(self, node: str) -> Outcome:
        return self.outcomes.get(node, Outcome())


def _command(argv: Sequence[str], directory: Path, *, limit: float) -> str:
    try:
        done = subprocess.run(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Without inlining across files one source is compiled, and the rest only linked.
            env={**os.environ, "IOXIDE_LTO": "0", "IOXIDE_FAULTS": "1"},
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{argv[0]} did not end within {limit:.0f} s") from None
    if done.returncode:
        raise BuildError(f"{shlex.join(argv[:1])} failed:\n{done.stdout[-4000:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Build:
    """How setup.py compiled and linked the extension, to repeat it for one source alone.

    setup.py itself compiles every source when one of them has changed, which is ten times as slow.
    """

    compilers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    linker: tuple[str, ...] = ()
    extension: str = ""

    @classmethod
    def of(cls, directory: Path) -> Build:
        """Build the extension of the tree in `directory`, if there is one, and watch how."""
        if not (directory / "setup.py").exists():
            return cls()
        output = _command(
            [sys.executable, "setup.py", "-v", "build_ext", "--inplace", "--force"],
            directory,
            limit=_BUILD_LIMIT,
        )
        compilers: dict[str, tuple[str, ...]] = {}
        linker: tuple[str, ...] = ()
        for line in output.splitlines():
            if " -o " not in line:
                continue
            words = tuple(shlex.split(line))
            if "-c" in words:
                compilers[str(Path(words[words.index("-c") + 1]))] = words
            elif "-shared" in words:
                linker = words
        if not compilers or not linker:
            raise BuildError("setup.py did not print the commands that it ran")
        name = Path(linker[linker.index("-o") + 1]).name
        found = [
            str(path.relative_to(directory))
            for path in directory.rglob(name)
            if "build" not in path.relative_to(directory).parts
        ]
        if len(found) != 1:
            raise BuildError(f"setup.py left {name} in {found} instead of in one place")
        return cls(compilers, linker, found[0])

    def again(self, directory: Path, changed: str) -> None:
        """Compile `changed` (every source, for a header) and link."""
        if not self.linker:
            raise BuildError(f"{changed} is to be compiled, but the tree has no setup.py")
        commands = list(self.compilers.values())
        if not changed.endswith(".h"):
            if changed not in self.compilers:
                raise BuildError(f"setup.py compiled no {changed}")
            commands = [self.compilers[changed]]
        for command in commands:
            _command(command, directory, limit=_BUILD_LIMIT)
        target = self.linker.index("-o") + 1
        link = (*self.linker[:target], self.extension, *self.linker[target + 1 :])
        _command(link, directory, limit=_BUILD_LIMIT)


def copy_tree(root: Path, target: Path) -> None:
    """Copy what git knows of, as it is in the work tree, and what it would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = root / name
        if not source.is_file():  # removed, and not yet committed
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / name)
    # Checked by hash, not by time: a file that is spoilt and restored within a second stays right.
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode=checked-hash", "."],
        cwd=target,
        stdout=subprocess.DEVNULL,
        check=False,
    )


class Workshop:
    """One copy of the tree; used by one thread at a time."""

    def __init__(self, directory: Path, build: Build) -> None:
        self.directory = directory
        self._build = build
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End what runs, and refuse to run more; from any thread."""
        self._stopped = True
        if (process := self._process) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def spoilt(self, mutant: Mutant) -> Iterator[None]:
        """The tree with `mutant` in it, built; restored afterwards.

        Raises `Stale` or `BuildError`.
        """
        path = self.directory / mutant.file
        original = path.read_text()
        path.write_text(mutant.apply(original))
        kept: dict[Path, bytes] = {}
        try:
            if mutant.compiled:
                kept = self._keep(mutant.file)
                self._build.again(self.directory, mutant.file)
            yield
        finally:
            path.write_text(original)
            for built, content in kept.items():
                built.unlink(missing_ok=True)  # never written to while somebody has it mapped
                built.write_bytes(content)

    def changed(self, mutant: Mutant) -> dict[str, bytes]:
        """The files that differ with `mutant` in the tree; raises `Stale` or `BuildError`."""
        with self.spoilt(mutant):
            names = [mutant.file, self._build.extension] if mutant.compiled else [mutant.file]
            return {name: (self.directory / name).read_bytes() for name in names}

    def _keep(self, changed: str) -> dict[Path, bytes]:
        commands = self._build.compilers
        objects = [
            command[command.index("-o") + 1]
            for source, command in commands.items()
            if source == changed or changed.endswith(".h")
        ]
        paths = [self.directory / name for name in (*objects, self._build.extension) if name]
        return {path: path.read_bytes() for path in paths}

    def run(self, nodes: Sequence[str], *, limit: float, wait: float, each: float) -> Run:
        """Run tests in this order in one pytest process, which has `limit` seconds.

        `wait` bounds what a test waits for, `each` one test, both in seconds.
        """
        plugins = self.directory.parent / f"{self.directory.name}.plugins"
        plugins.mkdir(exist_ok=True)
        shutil.copyfile(_RECORDER, plugins / "mutants_recorder.py")
        record, output = plugins / "record", plugins / "output"
        record.unlink(missing_ok=True)
        environment = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith("PYTEST") and key not in _CI
            },
            "PYTHONPATH": str(plugins),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTANTS_RECORD": str(record),
            "IOXIDE_TEST_TIMEOUT": str(wait),
        }
        argv = [sys.executable, "-m", "pytest", *PYTEST, f"--timeout={each}"]
        if (self.directory / "lab/suite/plugin.py").exists():
            argv.append("--lab-slow")
        argv += nodes
        began = time.monotonic()
        killed = False
        with output.open("wb") as sink:
            process = subprocess.Popen(
                argv,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._process = process
            try:
                if self._stopped:
                    raise Stopped
                process.wait(limit)
            except subprocess.TimeoutExpired:
                killed = True
            finally:
                self._process = None
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it left behind, too
                status = process.wait()
        return Run(
            outcomes_of(record.read_text() if record.exists() else ""),
            killed,
            status,
            output.read_text(errors="replace")[-6000:],
            time.monotonic() - began,
        )


def outcomes_of(record: str) -> dict[str, Outcome]:
    """What the recorder wrote down, test by test; its last line may be cut off."""
    outcomes: dict[str, Outcome] = {}
    for line in record.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off in the middle: the test has not ended
        outcome = outcomes.setdefault(entry["id"], Outcome())
        if entry["when"] == "start":
            outcome.started = True
            continue
        outcome.outcomes.append(entry["outcome"])
        outcome.ended = outcome.ended or entry["when"] == "teardown"
        if entry["outcome"] != "passed":
            outcome.messages += entry["messages"]
            outcome.text += entry["text"]
    return outcomes
