# SPDX-License-Identifier: MIT
"""``python inguest.py PROBE``: what tries mutants inside a guest; PROBE is the JSON of its probe.

It imports pytest once, and forks for each run: under emulation an interpreter and pytest take ten
seconds to come up, which is more than most tests take.  Nothing of the tree under test is imported
before the fork but the lab's wire, of which there is a copy beside the tree.  It is told what to
run, and answers; `tests/mutants/guest.py` is the other end.
"""

from __future__ import annotations

# Unused ones are what nearly every test, or pytest's own plugins, would import after the fork.
import asyncio  # noqa: F401
import contextlib
import encodings.idna  # noqa: F401
import json
import os
import pdb  # noqa: F401
import select
import shutil
import signal
import sys
import tarfile  # noqa: F401
import time
import tomllib  # noqa: F401
import unittest  # noqa: F401
import xml.etree.ElementTree  # noqa: F401
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from lab.remote.wire import Control, Kinds

HERE = Path(__file__).resolve().parent
TREE, PATCH = HERE / "tree", HERE / "patch"
RECORD, OUTPUT = HERE / "record", HERE / "output"
_TEXT = 3000
"""So much of each traceback goes to the host."""


class Told(StrEnum):
    """What the host tells this process."""

    RUN = "run"


class Said(StrEnum):
    """What this process answers."""

    ANSWER = "answer"


TO_GUEST: Kinds = {
    Told.RUN: {"arguments": list, "nodes": list, "limit": float, "wait": float, "each": float}
}
FROM_GUEST: Kinds = {
    Said.ANSWER: {"record": str, "output": str, "killed": bool, "status": int, "seconds": float}
}


class Knowing:
    """Answers `needs` with the probe made once in the tree as it is: no mutant has a say in it."""

    def __init__(self, probe: object) -> None:
        self._probe = probe

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        from lab.facts.probed import Probed
        from lab.suite.plugin import MODE, Mode

        mode = config.stash[MODE]
        known = Probed.from_object(self._probe)  # type: ignore[arg-type]
        config.stash[MODE] = Mode(
            lambda: known, mode.identity, hopeless=mode.hopeless, unconfirmed=mode.unconfirmed
        )


@contextlib.contextmanager
def patched() -> Iterator[list[Path]]:
    """The tree with what lies in PATCH instead of its own files; and these back, times and all."""
    names = [path.relative_to(PATCH) for path in PATCH.rglob("*") if path.is_file()]
    for name in names:
        kept = HERE / "kept" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TREE / name, kept)
        (TREE / name).unlink()  # never written to: another process may have it mapped
        shutil.copy(PATCH / name, TREE / name)
    try:
        yield names
    finally:
        for name in names:
            (HERE / "kept" / name).replace(TREE / name)
        shutil.rmtree(PATCH, ignore_errors=True)


def child(request: dict[str, Any], probe: object) -> int:
    """In the forked process: pytest over the nodes asked for."""
    os.setsid()
    sink = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(sink, descriptor)
    os.chdir(TREE)
    sys.path[:0] = [str(TREE), str(HERE / "plugins")]
    os.environ["MUTANTS_RECORD"] = str(RECORD)
    sys.dont_write_bytecode = request["patched"]  # or it would be taken for the unspoilt file's
    os.environ["IOXIDE_TEST_TIMEOUT"] = str(request["wait"])
    loaded = [name for name in sys.modules if name.split(".")[0] in ("ioxide", "lab", "tests")]
    assert not loaded, f"imported before the fork, so no mutant of theirs counts: {loaded}"
    argv = [*request["arguments"], f"--timeout={request['each']}", *request["nodes"]]
    return int(pytest.main(argv, plugins=[Knowing(probe)]))


def run(request: dict[str, Any], probe: object) -> dict[str, Any]:
    """One pytest process to its end, or to its limit."""
    RECORD.unlink(missing_ok=True)
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        status = 70
        try:
            status = child(request, probe)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    pidfd = os.pidfd_open(pid)
    killed = not select.select([pidfd], [], [], request["limit"])[0]
    os.close(pidfd)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it left behind, too
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {
        "record": _record(),
        "output": OUTPUT.read_text(errors="replace")[-2 * _TEXT :] if OUTPUT.exists() else "",
        "killed": killed,
        "status": status,
        "seconds": time.monotonic() - began,
    }


def _record() -> str:
    lines = RECORD.read_text().splitlines() if RECORD.exists() else []
    kept = []
    for line in lines:
        with contextlib.suppress(ValueError):  # cut off in the middle: the test has not ended
            entry = json.loads(line)
            if "text" in entry:
                entry["text"] = entry["text"][-_TEXT:]
            kept.append(json.dumps(entry))
    return "\n".join(kept)


def _forget_lab() -> None:
    """Whoever imports `lab` from here on gets the tree's, not the copy that brought the wire."""
    copy = os.environ.pop("PYTHONPATH")
    sys.path[:] = [path for path in sys.path if path != copy]
    for name in [name for name in sys.modules if name.split(".")[0] == "lab"]:
        del sys.modules[name]


def main() -> int:
    probe = json.loads(Path(sys.argv[1]).read_text())
    control = Control.inherited(TO_GUEST)
    _forget_lab()
    while True:
        try:
            _, request = control.listen()
        except EOFError:
            return 0
        with patched() as names:
            request["patched"] = bool(names)
            answer = run(request, probe)
        control.say(Said.ANSWER, **answer)


if __name__ == "__main__":
    sys.exit(main())
