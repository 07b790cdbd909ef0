# SPDX-License-Identifier: MIT
"""Which programs a repository's tables mean, found on the host before anything boots."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from ..project import Program, ProgramFormat, Project
from .judgement import Format
from .running import interpreter
from .spec import DEFAULT_SECONDS, ProgramTest

KSELFTEST_LIST = "kselftest-list.txt"
"""What `make -C tools/testing/selftests install` of Linux writes: `collection:test`, one a line."""
LIST_SECONDS = 120.0
_LIBRARY = re.compile(r".*\.(so|a|o|la|py[co])(\.\d+)*")
_PLAIN = re.compile(r"[^\s\[\]'\"\\$]+")
_TIMEOUT = re.compile(r"^\s*timeout\s*=\s*\"?(\d+)", re.MULTILINE)


def programs_of(project: Project, *, limit: float | None = None) -> list[ProgramTest]:
    """All tests of the project's tables, in their order; `limit` is their time limit in a guest, in
    seconds, instead of the tables'.

    Raises UsageError with a sentence for what is no test, and for two of one name.
    """
    found: dict[str, ProgramTest] = {}
    for program in project.programs:
        for test in _tests(project, program):
            if (other := found.get(test.name)) is not None:
                raise UsageError(
                    f"two programs are called {test.name}: {other.path} and {test.path}",
                    hint="list them in two tables, with names of their own",
                )
            if limit is not None:
                # The host's patience ends then; so the guest's ends before.
                test = ProgramTest(
                    test.name, test.path, test.directory, test.format, 0.8 * limit, scaled=False
                )
            found[test.name] = test
    return list(found.values())


def _tests(project: Project, program: Program) -> Iterator[ProgramTest]:
    if program.format is ProgramFormat.KSELFTEST:
        if not program.directory:
            raise _wrong(program, 'format = "kselftest" wants the directory of an installation')
        yield from _kselftests(project, program)
        return
    wanted = Format(program.format.value)
    seconds = program.timeout_s or DEFAULT_SECONDS
    for path in _directory(project, program) if program.directory else _listed(project, program):
        _usable(project, program, path)
        name = f"{program.name}/{PurePosixPath(path).name}"
        yield ProgramTest(name, path, program.directory or ".", wanted, seconds)


def _directory(project: Project, program: Program) -> list[str]:
    """The executables in a directory, sorted; not those below it."""
    top = project.path(program.directory)
    if not top.is_dir():
        raise _wrong(program, f"there is no directory {program.directory}", "build it first")
    found = []
    for path in sorted(top.iterdir()):
        if path.is_symlink() and not path.exists():
            name = path.relative_to(project.root).as_posix()
            raise _wrong(program, f"{name} is a link to what is not there", "build it first")
        if not path.is_file() or path.name.startswith(".") or _LIBRARY.fullmatch(path.name):
            continue
        relative = path.relative_to(project.root).as_posix()
        if os.access(path, os.X_OK):
            found.append(relative)
        elif interpreter(path):
            raise _wrong(
                program, f"{relative} has a #! line and is not executable", f"chmod +x {relative}"
            )
    if not found:
        raise _wrong(
            program,
            f"there is no executable in {program.directory}",
            "build them first, or name another directory",
        )
    return found


def _listed(project: Project, program: Program) -> list[str]:
    """What a command prints, one a line."""
    shown = " ".join(program.command)
    try:
        done = subprocess.run(
            program.command,
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _wrong(program, f"`{shown}` did not end within {LIST_SECONDS:.0f} s") from None
    except OSError as error:
        raise _wrong(program, f"`{shown}` cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-1:]
        raise _wrong(
            program,
            f"`{shown}` ended with status {done.returncode}" + "".join(f": {t}" for t in last),
        )
    lines = [line.strip() for line in os.fsdecode(done.stdout).splitlines()]
    found = [_inside(project, program, line) for line in lines if line and line[0] != "#"]
    if not found:
        raise _wrong(program, f"`{shown}` lists no program")
    return found


def _kselftests(project: Project, program: Program) -> Iterator[ProgramTest]:
    """The tests of an installation of the kernel's selftests."""
    top = project.path(program.directory)
    try:
        lines = (top / KSELFTEST_LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(
            program,
            f"{program.directory}/{KSELFTEST_LIST} cannot be read",
            "`make -C tools/testing/selftests install` of Linux writes it",
        ) from error
    count = 0
    for line in lines:
        if not line.strip():
            continue
        collection, colon, test = line.strip().partition(":")
        if not (collection and colon and test):
            raise _wrong(
                program, f"{KSELFTEST_LIST} has the line {line!r}, expected `collection:test`"
            )
        directory = f"{program.directory}/{collection}"
        path = _inside(project, program, f"{directory}/{test}")
        _usable(project, program, path)
        seconds = program.timeout_s or _settings(top / collection) or DEFAULT_SECONDS
        count += 1
        yield ProgramTest(
            f"{program.name}/{collection}:{test}", path, directory, Format.AUTO, seconds
        )
    if not count:
        raise _wrong(program, f"{program.directory}/{KSELFTEST_LIST} lists no test")


def _settings(collection: Path) -> float | None:
    """The time limit of a collection, in seconds; None for the usual one. 0 is kselftest's word
    for none (kselftest/runner.sh), which no test has here."""
    try:
        found = _TIMEOUT.search((collection / "settings").read_text(errors="replace"))
    except OSError:
        return None
    return float(found[1]) if found and int(found[1]) else None


def _inside(project: Project, program: Program, name: str) -> str:
    """A path as it was listed, relative to the root."""
    path = Path(os.path.normpath(project.root / name))
    if not path.is_relative_to(project.root):
        raise _wrong(program, f"{name} is outside of {project.root}, and no guest has it")
    return path.relative_to(project.root).as_posix()


def _usable(project: Project, program: Program, name: str) -> None:
    """Raise UsageError unless it is a program that a guest can be asked to run."""
    path = project.path(name)
    if not _PLAIN.fullmatch(path.name):
        raise _wrong(program, f"{name!r} is no name for a test: it has a space, quote or bracket")
    if not path.is_file():
        raise _wrong(program, f"there is no file {name}", "build it first")
    if not os.access(path, os.X_OK):
        raise _wrong(program, f"{name} is not executable", f"chmod +x {name}")
    script = interpreter(path)
    if script and not Path(script).is_file():
        raise _wrong(program, f"the interpreter of {name}, {script}, is not on this machine")


def _wrong(program: Program, what: str, hint: str = "") -> UsageError:
    return UsageError(f"programs {program.name}: {what}", hint=hint)


def paths_of(tests: Sequence[ProgramTest]) -> list[str]:
    """The directories and files that must travel for these tests to run, relative to the root."""
    return sorted(
        {test.path for test in tests} | {t.directory for t in tests if t.directory != "."}
    )
