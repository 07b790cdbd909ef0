# SPDX-License-Identifier: MIT
"""The lab's command line.

`lab test --kernel 6.12 [pytest arguments]` is pytest with the lab's plugin; everything but
`--kernel` goes to pytest as it stands. The last line printed names the exit code and why.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import tomllib
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import commands
from . import project as projects
from .commands import choosing
from .commands.log import told
from .errata import cli as errata_commands
from .errors import COMMAND, LabError, UsageError
from .facts.verdicts import Conclusion, ExitCode, Tally, conclude
from .kernels import lock
from .suite.stash import CONCLUSION, PLUGIN

EPILOG = """\
Several kernels are one run, with a verdict for each test on each kernel. ALLOW_MISSING="6.6 6.10"
in the environment names those that a run may do without.

exit codes: 0 everything proved; 1 disproved (failed, splat, surprise); 2 usage; 3 not proved (no
kernel, lost, never ran, nothing ran, nothing passed); 130 interrupted. 1 wins over 3."""


class _Parser(argparse.ArgumentParser):
    """Says the exit code and why in its last line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        _say(conclude(Tally({}, usage=message)))
        sys.exit(int(ExitCode.USAGE))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lab; returns the exit code."""
    parser = _Parser(
        prog=COMMAND,
        description="Boots real kernels and runs the suite in them.",
    )
    verbs = parser.add_subparsers(dest="command", required=True)
    test = verbs.add_parser(
        "test",
        help="run the suite in a guest",
        usage=f"{COMMAND} test [--kernel NAME]... [--as SERIES] [--repeat N] "
        "[--launcher vng] [pytest arguments]",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    choosing.add_options(test, several=True)
    choosing.add_launcher(test)
    choosing.add_wishes(test)
    test.add_argument(
        "--as",
        dest="plays",
        metavar="SERIES",
        help="let the kernel play an older one (6.6), by taking away what that one lacks",
    )
    test.add_argument(
        "--repeat",
        metavar="N",
        help="run the selection N times on each kernel, and tell how often each verdict came",
    )
    for flag, what in (("--hold", "open a shell in it"), ("--gdb", "wait for gdb")):
        test.add_argument(
            flag,
            action="store_true",
            help=f"keep the guest of each test that is not good, and {what}",
        )
    test.add_argument(
        "--dump",
        action="store_true",
        help="write the memory of a guest whose test hangs, or whose kernel complains or dies, "
        "into a file that drgn opens",
    )
    errata_commands.add_commands(verbs)
    commands.add_parsers(verbs)
    arguments, rest = parser.parse_known_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1), and what a shell detaches
            signal.signal(number, _as_interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer characters than a test
            stream.reconfigure(errors="backslashreplace")
    project = None
    try:
        project = projects.here()
        lock.use(project.path(project.lock) if project.lock else None)
    except LabError as error:  # whoever else needs the table says what is wrong with it
        if arguments.command == "kernels":  # without its lock they would be others
            return int(_say(conclude(Tally({}, usage=str(error)))).code)
    if handler := getattr(arguments, "handler", None):
        if rest:
            words = " ".join(rest)
            its_parser = getattr(arguments, "parser", parser)
            its_parser.error(f"unknown arguments: {words}; a command to run stands behind --")
        if getattr(arguments, "narrowed", None):
            try:
                arguments.narrowed = _narrowing(arguments.narrowed)
            except UsageError as error:
                print(f"lab: {error}", file=sys.stderr)
                return error.exit_code
        try:
            return int(handler(arguments))
        except OSError as error:
            print(f"lab: {_file_error(error)}", file=sys.stderr)
            return int(ExitCode.NOT_PROVED)
    if errata_commands.handles(arguments.command):
        if rest:
            parser.error(f"unknown arguments: {' '.join(rest)}")
        return int(_say(_errata(arguments)).code)
    if {"-V", "--version"} & set(rest):
        import pytest

        return int(pytest.main(rest))
    try:
        # Where no kernel is named, the table has to: what is wrong with it is said here.
        if project is None and arguments.kernel is None and arguments.kernel_file is None:
            project = projects.here()
        names, wishes = choosing.names_of(arguments, project), choosing.wishes_of(arguments)
    except UsageError as error:
        test.error(str(error))
    except LabError as error:
        return int(_say(conclude(Tally({}, problems=[str(error)]))).code)
    with told():
        plays = [] if arguments.plays is None else [f"--lab-as={arguments.plays}"]
        by = [f"--lab-launcher={arguments.launcher}"]
        asked = wishes.options("--lab-")
        if arguments.repeat is not None:
            asked = [*asked, f"--lab-repeat={arguments.repeat}"]
        asked += [f"--lab-{flag}" for flag in ("hold", "gdb", "dump") if getattr(arguments, flag)]
        return int(_test(names, [*plays, *by, *asked, *rest]).code)


def _narrowing(words: Sequence[str]) -> Sequence[str]:
    """Those of a plan's words that leave tests out. Raises UsageError."""
    import pytest

    from .suite import narrowing

    try:
        return narrowing.of_words(words)
    except pytest.UsageError as error:
        raise UsageError(f"--narrowed {' '.join(words)}: {error}") from error


def _errata(arguments: argparse.Namespace) -> Conclusion:
    try:
        return errata_commands.run(arguments)
    except LabError as error:
        return errata_commands.failed(error)
    except OSError as error:
        return Conclusion(ExitCode.NOT_PROVED, _file_error(error))
    except KeyboardInterrupt:
        return Conclusion(ExitCode.INTERRUPTED, "interrupted; what was measured is kept")


def _file_error(error: OSError) -> str:
    """A file that cannot be read or written, as a sentence. Raises any other error again: it is
    none that a person could mend."""
    if error.filename is None or isinstance(error, BrokenPipeError):
        raise error
    return f"{os.fsdecode(error.filename)} cannot be read or written: {error.strerror}"


_PYTEST_FILES = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"),
    *("pyproject.toml", "tox.ini", "setup.cfg"),
)
"""Where pytest 9 looks for its settings."""
_ended_by: list[int] = []
"""The signals that asked for the end: a terminal that is gone lets nothing say so afterwards."""


def _as_interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _ended_by.append(number)
    # Whoever ends us politely gets the same clean-up as Ctrl-C: no guest may outlive the run.
    raise KeyboardInterrupt


def _test(names: Sequence[str], rest: Sequence[str]) -> Conclusion:
    """Run pytest with the plugin; what it concluded, or what kept it from a conclusion."""
    import pytest

    class Witness:
        """Takes the conclusion out of the session before pytest forgets it."""

        conclusion: Conclusion | None = None

        @pytest.hookimpl(trylast=True)
        def pytest_unconfigure(self, config: pytest.Config) -> None:
            self.conclusion = config.stash.get(CONCLUSION, None)

    witness = Witness()
    # The nearest thing to `-p` in addopts that also works in a directory without our settings.
    plugins = ["-p", PLUGIN]
    # pytest takes for its root what its own settings say, which need not be the table's.
    root = [] if any(w.startswith("--rootdir") for w in rest) else [f"--rootdir={_root()}"]
    asked = [f"--lab-kernel={name}" for name in names]
    words = [*plugins, *root, *_settings(_root()), *asked, *rest]
    try:
        status = pytest.main(words, plugins=[witness])
    except KeyboardInterrupt:
        return _say(conclude(Tally({}, interrupted=True)))
    except LabError as error:
        usage = error.exit_code == ExitCode.USAGE
        sentence = str(error)
        return _say(
            conclude(Tally({}, usage=sentence) if usage else Tally({}, problems=[sentence]))
        )
    except Exception as error:
        if _ended_by:
            return _say(conclude(Tally({}, interrupted=True)))
        # pytest raises here what it could not put into a report while it shut down. Whatever was
        # concluded before, a run whose end went wrong is not green.
        with suppress(OSError):  # which may be that nobody reads any more
            traceback.print_exc()
        before = witness.conclusion
        if before is None or before.code in (ExitCode.PROVED, ExitCode.NOT_PROVED):
            before = conclude(Tally({}, problems=[f"pytest did not end in good order: {error}"]))
        return _say(before)
    if witness.conclusion is not None:
        usage = witness.conclusion.code is ExitCode.USAGE
        return _say(witness.conclusion) if usage else witness.conclusion
    if status == pytest.ExitCode.USAGE_ERROR:
        return _say(
            conclude(Tally({}, usage="pytest refused its arguments or its settings, see above"))
        )
    return _say(
        conclude(Tally({}, problems=[f"pytest ended with {int(status)} before any verdict"]))
    )


def _root() -> Path:
    return projects.find(Path.cwd())


def _settings(root: Path) -> list[str]:
    """What keeps pytest from the settings of a directory above, for a repository without any of its
    own that lies inside another: it would run by the other's, and no guest has their file."""

    def any_in(directory: Path) -> bool:
        return any(_has_settings(directory / name) for name in _PYTEST_FILES)

    if any_in(root) or not any(any_in(above) for above in root.parents):
        return []
    # A later --config-file wins. The file's directory would be where conftest.py files end.
    return [f"--config-file={os.devnull}", f"--confcutdir={root}"]


def _has_settings(file: Path) -> bool:
    """Whether pytest takes this file for its settings, and looks no further up: a pytest.ini
    however empty, another one with a section for pytest (pytest 9, findpaths.py)."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.name == "pyproject.toml":
            return "pytest" in tomllib.loads(text).get("tool", {})
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return True  # pytest says what is wrong with it
    section = {"tox.ini": "[pytest]", "setup.cfg": "[tool:pytest]"}.get(file.name)
    return section is None or any(line.strip() == section for line in text.splitlines())


def _say(conclusion: Conclusion) -> Conclusion:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        print(conclusion, flush=True)
    except OSError:
        # The terminal or the reader of the pipe is gone. The exit code still tells, if Python does
        # not fail once more over what it could not write.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    return conclusion
