# SPDX-License-Identifier: MIT
"""Runs reproducers of errata one after the other in this process: `python -m lab.errata.reproduce`.

Inside guests of a sweep, where a guest is booted per release and pytest's start would cost more
than all the reproducers together.  A reproducer is a test function without fixtures, gated by the
same `needs` marks and the same probe as under pytest, and found present by the same exception.

Says, by `lab.remote.wire`, who it is (the proof of `lab.remote.identity`), then of each node id
given that it has begun and what was found, then that it is done.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from ..facts.errata import Seen, erratum_in, is_not_tried
from ..facts.probed import Probed
from ..remote.identity import PROOF, identify
from ..remote.wire import DONE, Control, Kinds
from ..rules.dmesg import MARK
from ..rules.needs import missing

KMSG_VARIABLE = "LAB_KMSG"
"""Names the file that is told, between two reproducers, which one is next: /dev/kmsg in a guest."""


def mark_of(name: str) -> str:
    """The line in the kernel log before the complaints that belong to this reproducer."""
    return f"{MARK} reproduce {name}"


PROBE_VARIABLE = "LAB_PROBE"
"""Holds the probe's command and how to have it look at less, as JSON."""


class Said(StrEnum):
    """What this process says."""

    HELLO = "hello"
    BEGUN = "begun"
    FOUND = "found"
    DONE = DONE


KINDS: Kinds = {
    Said.HELLO: dict.fromkeys(PROOF, str),
    Said.BEGUN: {"id": str},
    Said.FOUND: {"id": str, "seen": str, "evidence": str},
    Said.DONE: {"found": int},
}


def main(names: Sequence[str]) -> int:
    """Run the reproducers with these node ids; 0 whatever they found."""
    # Before anything is imported: what a reproducer starts is not to speak for it.
    control = Control.inherited({})
    control.say(Said.HELLO, **identify(Path.cwd(), None).proof())
    probe = _probe(names)
    for name in names:
        control.say(Said.BEGUN, id=name)
        _mark(name)
        seen, evidence = reproduce(name, probe)
        control.say(Said.FOUND, id=name, seen=seen.value if seen else "", evidence=evidence)
    control.say(Said.DONE, found=len(names))
    return 0


def _probe(names: Sequence[str]) -> Probed:
    """The probe of this kernel, of the capabilities that the reproducers need."""
    raw = os.environ.get(PROBE_VARIABLE)
    if raw is None:
        return Probed(os.uname().release, None, {})
    asked = json.loads(raw)
    # The whole probe takes ten seconds under emulation, a third of a release's time in a sweep.
    needed = {capability for name in names for capability in _needed(*find(name))}
    words = [f"-{name.lower()}" for name in asked["capabilities"] if name not in needed]
    environment = dict(os.environ)
    if variable := asked["mask_variable"]:
        before = environment.get(variable)
        environment[variable] = ",".join([*filter(None, [before]), *words])
    done = subprocess.run(
        asked["command"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    try:
        return Probed.from_json(done.stdout)
    except ValueError as error:
        said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-3:]
        raise SystemExit(f"the probe gave no report: {' / '.join(said) or error}") from error


def probe_environment(
    command: Sequence[str], mask_variable: str, capabilities: Iterable[str]
) -> dict[str, str]:
    """How a process of reproducers is told of the repository's probe, if it has one."""
    if not command:
        return {}
    asked = {
        "command": list(command),
        "mask_variable": mask_variable,
        "capabilities": sorted(capabilities),
    }
    return {PROBE_VARIABLE: json.dumps(asked)}


def reproduce(name: str, probe: Probed) -> tuple[Seen | None, str]:
    """Run one reproducer: what was seen, None if it was not tried, and a line about it."""
    try:
        module, function = find(name)
        if why := missing(_needed(module, function), probe):
            return Seen.NOT_APPLICABLE, why
        function()
    except Exception as error:
        if (said := erratum_in(error)) is not None:
            return Seen.PRESENT, f"{said[0]}: {said[1]}"
        if is_not_tried(error):
            return None, f"not tried: {error}".splitlines()[0]
        traceback.print_exc()
        return Seen.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
    return Seen.ABSENT, ""


def find(name: str) -> tuple[ModuleType, Callable[[], None]]:
    """The module and the function that a node id names."""
    path, _, function = name.partition("::")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module, getattr(module, function)


def _needed(module: ModuleType, function: Callable[[], None]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for holder in (module, function):
        for mark in _marks(holder):
            if mark.name == "needs":
                names |= dict.fromkeys(str(argument) for argument in mark.args)
    return tuple(names)


def _marks(holder: object) -> Iterator[Any]:
    found = getattr(holder, "pytestmark", ())
    for one in found if isinstance(found, (list, tuple)) else (found,):
        yield getattr(one, "mark", one)


def _mark(name: str) -> None:
    if path := os.environ.get(KMSG_VARIABLE):
        # Opened anew each time: the kernel limits how fast one descriptor may write.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"<5>{mark_of(name)}".encode())
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
