# SPDX-License-Identifier: MIT
"""``python -m tests.conformance [NAME ...]``: other people's tests and programs on our loop.

Without names everything runs: ``cpython``, each suite by its package's name, each program by its
module's. The packages are those of ``requirements.txt``, in an environment of its own.

Exit status: 0 nothing fails on ioxide alone but what is listed; 1 something does, or an entry is
stale; 3 something could not run, so that nothing was proved.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conformance import suites
from tests.conformance.environment import HERE, ROOT, Environment, SetUpError

PROGRAMS = tuple(
    sorted(
        path.stem
        for path in (HERE / "programs").glob("*.py")
        if path.stem not in ("__init__", "application", "common")
    )
)
# They have no TLS of their own kind, so that once is enough.
PLAIN = {"asyncssh_session", "ipykernel_client", "pytest_plugins"}
LIMIT = 300.0


def _program(name: str, kind: str, environment: Environment, loop: str) -> str | None:
    """Run one program; what it said if it failed."""
    module = f"tests.conformance.programs.{name}"
    try:
        done = subprocess.run(
            (environment.python, "-m", module, loop, kind),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return f"did not end within {LIMIT:.0f} s: {(error.stdout or b'')[-2000:].decode()}"
    return done.stdout[-3000:].decode(errors="replace") if done.returncode else None


def _programs(names: list[str], environment: Environment) -> tuple[list[str], list[str]]:
    """What is wrong, and what could not run."""
    wrong, void = [], []
    for name in PROGRAMS:
        if names and name not in names:
            continue
        for kind in ("tcp",) if name in PLAIN else ("tcp", "tls"):
            said = _program(name, kind, environment, "ioxide")
            print(f"{name}, {kind}: {'failed' if said else 'good'}", flush=True)
            if said is None:
                continue
            # Only what asyncio does is asked of ioxide; a program that fails there proves nothing.
            theirs = _program(name, kind, environment, "asyncio")
            if theirs is None:
                wrong.append(f"{name}, {kind}, fails on ioxide and not on asyncio:\n{said}")
            else:
                void.append(f"{name}, {kind}, fails on asyncio too:\n{theirs}")
    return wrong, void


def main() -> int:
    names = sys.argv[1:]
    suite_names = [each.package for each in suites.SUITES]
    if unknown := set(names) - {"cpython", *suite_names, *PROGRAMS}:
        known = ", ".join(("cpython", *suite_names, *PROGRAMS))
        print(f"{', '.join(sorted(unknown))}: there are {known}", file=sys.stderr)
        return 2
    wrong: list[str] = []
    void: list[str] = []
    environment = Environment()
    if not names or "cpython" in names:
        status = subprocess.run((sys.executable, "-m", "tests.cpython"), cwd=ROOT, check=False)
        if status.returncode:
            (wrong if status.returncode == 1 else void).append("CPython's tests: see above")
    try:
        if not names or set(names) - {"cpython"}:
            environment.make()
        chosen = suites.chosen([n for n in names if n in suite_names])
        for suite in chosen if not names or set(names) & set(suite_names) else ():
            wrong += suites.run(suite, environment)
        more, less = (
            _programs(names, environment) if not names or set(names) & set(PROGRAMS) else ([], [])
        )
        wrong, void = wrong + more, void + less
    except (SetUpError, suites.Void, subprocess.TimeoutExpired) as error:
        void.append(str(error))
    for each in (*wrong, *void):
        print(each, file=sys.stderr)
    print(f"{len(wrong)} wrong, {len(void)} not proved")
    return 1 if wrong else 3 if void else 0


if __name__ == "__main__":
    sys.exit(main())
