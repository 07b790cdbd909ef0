# SPDX-License-Identifier: MIT
"""The suites of other projects, on asyncio's loop and on ours: what fails on ours alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.environment import HERE, ROOT, Environment, SetUpError

LISTED = HERE / "listed.toml"
LIMIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tests that a package's source distribution has."""

    package: str
    tests: tuple[str, ...]
    """Files below the distribution's root; those that open connections."""
    options: tuple[str, ...] = ()
    enough: int
    """Fewer passed tests than that prove nothing."""
    remove: tuple[str, ...] = ()
    """The package's own directories, so that what is installed is imported."""


SUITES = (
    Suite(
        package="aiohttp",
        tests=(
            "tests/test_client_functional.py",
            "tests/test_client_ws_functional.py",
            "tests/test_connector.py",
            "tests/test_proxy_functional.py",
            "tests/test_run_app.py",
            "tests/test_test_utils.py",
            "tests/test_web_functional.py",
            "tests/test_web_runner.py",
            "tests/test_web_sendfile_functional.py",
            "tests/test_web_server.py",
            "tests/test_web_websocket_functional.py",
        ),
        # Its own addopts measure coverage, and one other plugin would run its coroutines.
        options=("-o", "addopts=", "-p", "no:asyncio", "-m", "not dev_mode and not autobahn"),
        enough=1100,  # 1,120 of 1,136 passed with CPython 3.11.7
        remove=("aiohttp",),
    ),
    Suite(
        package="uvloop",
        tests=("tests/test_tcp.py", "tests/test_sockets.py", "tests/test_base.py"),
        options=("-k", "AIO or aio", "-p", "no:asyncio"),
        enough=70,  # 77 passed with CPython 3.11.7
        remove=("uvloop",),
    ),
)


class Void(Exception):
    """A suite did not run as it has to; nothing was proved."""


def _outcomes(suite: Suite, environment: Environment, loop: str) -> tuple[set[str], set[str]]:
    """The ids of the tests that passed, and of those that failed."""
    source = environment.source(suite.package)
    for name in suite.remove:
        if (source / name).is_dir():
            shutil.rmtree(source / name)
    report = source / f"conformance-{loop}.xml"
    report.unlink(missing_ok=True)
    if missing := [each for each in suite.tests if not (source / each).is_file()]:
        raise SetUpError(f"the sources of {suite.package} have no {missing}: update suites.py")
    argv: list[str | Path] = [
        *(environment.python, "-m", "pytest", "-q", "--tb=short", "-p", "loop_plugin"),
        *("-p", "no:anyio", "-p", "no:cacheprovider", "--timeout=120", f"--junitxml={report}"),
        *(*suite.options, *suite.tests),
    ]
    log = source / f"conformance-{loop}.log"
    with log.open("wb") as file:
        subprocess.run(
            argv,
            cwd=source,
            # By a name of its own: in a suite that is a package, `tests` is that package.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))),
                "CONFORMANCE_LOOP": loop,
            },
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
    if not report.is_file():
        raise Void(f"{suite.package} on {loop} wrote no report: {log}")
    passed, failed = set(), set()
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.add(name)
        elif "skipped" not in kinds:
            passed.add(name)
    return passed - failed, failed


def listed(path: Path = LISTED) -> dict[tuple[str, str], str]:
    """The reasons of what fails on ours alone, by suite and test."""
    data: dict[str, Any] = tomllib.loads(path.read_text())
    return {(entry["suite"], entry["test"]): entry["reason"] for entry in data.get("fails", ())}


def judge(
    suite: str,
    theirs: tuple[set[str], set[str]],
    ours: tuple[set[str], set[str]],
    reasons: dict[tuple[str, str], str],
) -> list[str]:
    """What is wrong, a sentence each: new failures, and entries that are stale."""
    only_ours = ours[1] & theirs[0]
    expected = {test for name, test in reasons if name == suite}
    wrong = [
        f"{suite}: {test} fails on ioxide and passes on asyncio"
        for test in sorted(only_ours - expected)
    ]
    wrong += [
        f"{suite}: {test} is gone on ioxide and passes on asyncio"
        for test in sorted(theirs[0] - ours[0] - ours[1])
    ]
    wrong += [
        f"{suite}: {test} is listed in listed.toml and does not fail on ioxide alone any more: "
        "remove the entry"
        for test in sorted(expected - only_ours)
    ]
    return wrong


def run(suite: Suite, environment: Environment) -> list[str]:
    """Run it on both loops; what is wrong. Raises `Void` and `SetUpError`."""
    theirs, ours = (_outcomes(suite, environment, loop) for loop in ("asyncio", "ioxide"))
    print(
        f"{suite.package}: asyncio {len(theirs[0])} passed, {len(theirs[1])} failed; "
        f"ioxide {len(ours[0])} passed, {len(ours[1])} failed",
        flush=True,
    )
    if len(theirs[0]) < suite.enough:
        raise Void(f"{suite.package}: only {len(theirs[0])} tests passed on asyncio itself")
    return judge(suite.package, theirs, ours, listed())


def chosen(words: Sequence[str]) -> tuple[Suite, ...]:
    """The suites whose package is among `words`; all without any."""
    return tuple(each for each in SUITES if not words or each.package in words)
