# SPDX-License-Identifier: MIT
"""Which tests a run takes, and how the guest is told to collect the same ones."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .stash import PLUGIN, PROJECT

SLOW_VARIABLE = "SLOW"
GUEST_FIXTURE = "guest_host"
"""A test with this fixture runs on the host."""
GUEST_LEFT_OUT = pytest.StashKey[int]()
"""How many tests were left out that ask a guest."""
MOST_TIMES = 10_000
"""So often a selection can be run: results.json has each run of each test."""
OF_CACHE = ("lf", "stepwise")
"""Options that select by what the host's cache remembers."""
SLOW_LEFT_OUT = pytest.StashKey[int]()
"""How many slow tests were left out."""


def takes_slow(config: pytest.Config) -> bool:
    """Whether slow tests were asked for: --lab-slow, SLOW=1, or a -m expression that names them."""
    return (
        bool(config.getoption("lab_slow"))
        or os.environ.get(SLOW_VARIABLE, "") not in ("", "0")
        or "slow" in str(config.getoption("markexpr", ""))
    )


def asks_guest(item: pytest.Item) -> bool:
    """Whether the item runs on the host and asks a guest: it names the fixture, or one of its other
    fixtures does."""
    return GUEST_FIXTURE in getattr(item, "fixturenames", ())


def leave_out(config: pytest.Config, items: list[pytest.Item], marker: str) -> int:
    """Deselect the items with this marker; how many they were."""
    return leave_out_if(config, items, lambda item: item.get_closest_marker(marker) is not None)


def leave_out_if(
    config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]
) -> int:
    """Deselect the items of which this is true; how many they were."""
    out = [item for item in items if wanted(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        gone = set(out)
        items[:] = [item for item in items if item not in gone]
    return len(out)


def stays_on_host(config: pytest.Config, path: Path) -> bool:
    """Whether `path` is a directory or file that does not travel to a guest."""
    from .. import project as projects  # not in guests

    if not path.is_relative_to(config.rootpath) or path == config.rootpath:
        return False
    relative = path.relative_to(config.rootpath).as_posix()
    project = config.stash[PROJECT]
    if path.is_dir():  # what is in it may travel unless a key keeps out all of it
        return projects.matches_any(project.exclude, relative)
    return not projects.travels(project, relative)


def looks_in_cache(config: pytest.Config) -> bool:
    """Whether the selection depends on what the host's cache remembers of the last run."""
    return any(bool(config.getoption(name, False)) for name in OF_CACHE)


def order_was_asked_for(config: pytest.Config) -> bool:
    """Whether some option says in which order the tests are to run."""
    names = ("failedfirst", "newfirst", "stepwise")
    return any(bool(config.getoption(name, False)) for name in names)


def times(config: pytest.Config) -> int:
    """How often the selection is to be run on each kernel. Raises pytest.UsageError."""
    asked = config.getoption("lab_repeat")
    if asked is None:
        return 1
    number = int(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else 0
    if not 1 <= number <= MOST_TIMES:
        raise pytest.UsageError(
            f"--repeat {asked}: how often each test is run is a number from 1 to {MOST_TIMES}"
        )
    return number


def key(config: pytest.Config, **more: Any) -> str:
    """A hash over what decides which tests run and in which guests: paths and ids, `-k`, `-m`,
    `--deselect`, `--ignore`, `--lf` and its like, slow tests or not, `--as`, and what is given.
    How often and in how many guests at once they run is not part of it."""
    option = config.option
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    import hashlib  # not in guests, where each import counts
    import json

    whole = {
        "paths": sorted(_inside(config, argument) for argument in config.args) if named else [],
        "keyword": option.keyword,
        "marks": option.markexpr,
        "deselect": sorted(option.deselect or ()),
        "ignore": sorted(_inside(config, path) for path in option.ignore or ()),
        "ignore_glob": sorted(option.ignore_glob or ()),
        "of_cache": [name for name in OF_CACHE if config.getoption(name, False)],
        "slow": takes_slow(config),
        "plays": config.getoption("lab_as"),
        **more,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def check(config: pytest.Config) -> None:
    """Raises pytest.UsageError for a path outside the repository, before it is collected: that runs
    what is there. Likewise for a configuration file that does not travel to the guest."""
    from . import coverage  # not in guests

    named = config.option.inifilename
    if named and config.inipath is not None and stays_on_host(config, config.inipath):
        raise pytest.UsageError(f"--config-file={named}: this file does not travel to the guest")
    if (named := coverage.configuration(config)) and (
        path := Path(os.path.normpath(config.invocation_params.dir / named))
    ).is_file():
        _inside(config, named)
        if stays_on_host(config, path):
            raise pytest.UsageError(f"--cov-config={named}: this file does not travel to the guest")
    for argument in config.args:
        relative = _inside(config, argument).partition("::")[0]
        path = config.rootpath / relative
        if path.exists() and stays_on_host(config, path):
            raise pytest.UsageError(f"{argument}: {_why_here(config, relative)}")


def _why_here(config: pytest.Config, path: str) -> str:
    from .. import project as projects  # not in guests

    project = config.stash[PROJECT]
    where = "[tool.lab] of pyproject.toml" if project.file == "pyproject.toml" else project.file
    if by := next((one for one in project.exclude if projects.matches_any([one], path)), ""):
        return f'no guest has it: {where} has exclude = ["{by}"]'
    return f"no guest has it: it does not travel by the key include of {where}"


def guest_arguments(config: pytest.Config) -> list[str]:
    """pytest's arguments in the guest: the same selection, the same look of tracebacks.

    Raises pytest.UsageError for a path outside the repository, which no guest has.
    """
    from . import options  # a guest has no use for it

    option = config.option
    arguments = ["--rootdir", ".", "-q", "--no-summary"]
    if config.inipath is not None:
        # Of the host's files a guest has only these, and /dev/null.
        inside = config.inipath.is_relative_to(config.rootpath)
        settings = config.inipath.relative_to(config.rootpath) if inside else config.inipath
        arguments += ["-c", settings.as_posix()]
    # Named here, not left to the project's addopts: those may ask for what a guest has not.
    arguments += ["-o", "addopts="]
    arguments += [
        f"--{name.replace('_', '-')}"
        for name in ("strict_markers", "strict_config")
        if config.getoption(name, False)
    ]
    # Its cache is its own: what a guest is to run is decided on the host.
    arguments += ["-p", PLUGIN, "--lab-guest", "-o", "cache_dir=.lab/cache"]
    # By its entry point or by `-p`: the project's settings name it, and strict-config insists.
    if any(map(config.pluginmanager.hasplugin, ("timeout", "pytest_timeout"))):
        arguments += ["-p", "pytest_timeout", "-o", "timeout=0"]
    # A thread for each test, to show the stacks of one that hangs: the host sees to that.
    arguments += ["-o", "faulthandler_timeout=0"]
    if takes_slow(config):
        arguments.append("--lab-slow")
    arguments += options.arguments(config)
    arguments += ["-v"] * max(0, option.verbose + 1) if option.verbose > 0 else []
    for path in option.ignore or ():
        arguments.append(f"--ignore={_inside(config, path)}")
    return [*arguments, *(_inside(config, argument) for argument in config.args)]


def _inside(config: pytest.Config, argument: str) -> str:
    """A path or node id given on the host, relative to the root of the tree."""
    bracket = argument.find("[")
    base = argument if bracket < 0 else argument[:bracket]
    path, colons, _ = base.partition("::")
    absolute = Path(os.path.normpath(config.invocation_params.dir / path))
    if not absolute.is_relative_to(config.rootpath):
        raise pytest.UsageError(
            f"{argument}: is outside {config.rootpath}, and no guest would have it"
        )
    relative = absolute.relative_to(config.rootpath).as_posix()
    return relative + (argument[len(path) :] if colons else "")
