# SPDX-License-Identifier: MIT
"""``python -m tests.others.swept``: liburing's quick programs on the newest kernel of each series.

Those of ``quick.txt`` end within five seconds in an emulated guest. `lab sweep` runs each once on
every kernel; what changes and fails somewhere runs five times more, for under emulation a deadline
may be missed. docs/liburing-sweep.md is written of both, with the likely causes of causes.toml.

A program that measures time fails now and then in an emulated guest. So what is unsteady wherever
it fails needs no cause, and a cause with ``times = true`` no change.

Exit status: 0 all is measured, and each change has its cause; 1 a change has none, or a cause has
no change; 3 something has no verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/lab-liburing"
PAGE = ROOT / "docs/liburing-sweep.md"
QUICK, CAUSES, SWEPT = EXAMPLE / "quick.txt", EXAMPLE / "causes.toml", EXAMPLE / "swept.json"
KERNELS = ("6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
"""The series that Debian's archive has releases of."""
TIMES = 5
NONE: Mapping[str, Any] = {"kernels": [], "missing": [], "verdicts": {}}
_BAD = frozenset({"failed", "splat"})
_HEAD = """\
<!-- SPDX-License-Identifier: MIT -->
<!-- Written by `make lab-sweep`; edit examples/lab-liburing/causes.toml instead. -->
# Where liburing's test programs change between kernels

`lab sweep` ran {programs} programs of liburing 2.9, those that end within five seconds, on the
newest release of each series in Debian's archive, in guests with one emulated processor
({date}). {again}{same} programs come to the same on every kernel. Each other one has
its likely cause, as its source and its words tell.

"""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.others.swept", allow_abbrev=False)
    parser.add_argument(
        "--sweep",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take this sweep.json instead of sweeping, and that of the programs that ran again",
    )
    parser.add_argument("--page", action="store_true", help="write the page again, and measure not")
    arguments = parser.parse_args(argv)
    if arguments.page:
        swept = json.loads(SWEPT.read_text())
    else:
        once, again = [*map(_read, arguments.sweep), NONE][:2] if arguments.sweep else _sweep()
        swept = merged(once, again, f"{datetime.now(UTC):%-d %B %Y}")
        SWEPT.write_text(render_json(swept))
    causes = tomllib.loads(CAUSES.read_text())["cause"]
    PAGE.write_text(render(swept, causes))
    wrong = faults(swept, causes)
    for sentence in wrong:
        print(sentence)
    print(f"{len(swept['changes'])} changes in {PAGE.relative_to(ROOT)}, {len(wrong)} faults")
    return 3 if swept["undecided"] else int(bool(wrong))


def quick() -> list[str]:
    """The programs that are swept."""
    lines = QUICK.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _sweep() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    subprocess.run([EXAMPLE / "fetch", *quick()], check=True)
    once = _swept("build/programs", ())
    again = EXAMPLE / "build/again"
    shutil.rmtree(again, ignore_errors=True)
    again.mkdir()
    for name in suspicious(once):
        shutil.copy2(EXAMPLE / "build/programs" / name, again)
    return once, _swept("build/again", ("--repeat", str(TIMES)))


def _swept(programs: str, words: Sequence[str]) -> dict[str, Any]:
    """Sweep as anybody would, in the example's directory; what sweep.json says."""
    results = EXAMPLE / "lab-results" / Path(programs).name
    command = [sys.executable, "-m", "lab", "sweep", "--programs", programs, "--format", "exit"]
    command += ["--timeout", "5", "--results", str(results), *words]
    command += [word for name in KERNELS for word in ("--kernel", name)]
    subprocess.run(command, cwd=EXAMPLE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    newest = max(results.glob("sweep-*/sweep.json"), key=lambda path: path.stat().st_mtime)
    return _read(newest)


def suspicious(once: Mapping[str, Any]) -> list[str]:
    """The programs that change and fail, or splat, somewhere."""
    return [
        name
        for name in once["changes"]
        if any(cell["verdict"] in _BAD for cell in once["verdicts"][name].values())
    ]


def merged(once: Mapping[str, Any], again: Mapping[str, Any], date: str) -> dict[str, Any]:
    """Of both sweeps: per program that changes its word on each kernel, and what it said where it
    failed."""
    names = [kernel["name"] for kernel in once["kernels"]]
    words, said = {}, {}
    for program in once["changes"]:
        row = once["verdicts"][program]
        more = again["verdicts"].get(program, {})
        words[program] = [_word(row[k], more.get(k)) for k in names]
        reasons = {
            f"{k}: {cell['why']}": None
            for cells in (row, more)
            for k, cell in cells.items()
            if cell["verdict"] in _BAD
        }
        said[program] = list(reasons)
    undecided = [*once["missing"], *again["missing"]]
    undecided += [p for one in (once, again) for k in one["kernels"] for p in k["problems"]]
    return {
        "date": date,
        "programs": len(once["verdicts"]),
        "kernels": names,
        "again": [kernel["name"] for kernel in again["kernels"]],
        "changes": words,
        "said": said,
        "undecided": undecided,
    }


def _again(swept: Mapping[str, Any]) -> str:
    """What is to be said of the second sweep."""
    names = [name for name in swept["kernels"] if name in swept["again"]]
    if not names:
        return "Nothing was repeated, so a program that measures time may fail by itself.\n"
    where = "each kernel" if names == swept["kernels"] else ", ".join(names)
    return (
        f"A program that changes and fails somewhere then ran {TIMES} times more, on {where}:\n"
        "*unsteady* is what did not end the same way each time.\n"
    )


def _word(cell: Mapping[str, Any], again: Mapping[str, Any] | None) -> str:
    runs = [cell["verdict"], *(again["runs"] if again else ())]
    if len(set(runs)) == 1:
        return str(runs[0])
    return f"unsteady, {sum(run in _BAD for run in runs)} of {len(runs)} failed"


def render_json(swept: Mapping[str, Any]) -> str:
    """The same with a line for each program, so that a change is seen as one."""
    rows = {
        key: ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in swept[key].items())
        for key in ("changes", "said")
    }
    plain = {k: v for k, v in swept.items() if k not in rows}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in plain.items()]
    lines += [f" {json.dumps(key)}: {{\n{text}\n }}" for key, text in rows.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def faults(swept: Mapping[str, Any], causes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each change without one cause, cause without a change, and missing verdict."""
    named = [one["program"] for one in causes]
    found = [
        f"{name} has {named.count(name)} causes in {CAUSES.name}"
        for name, words in swept["changes"].items()
        if named.count(name) > 1 or (name not in named and not _only_unsteady(words))
    ]
    found += [
        f"{one['program']} does not change"
        for one in causes
        if one["program"] not in swept["changes"] and not one.get("times")
    ]
    return found + list(swept["undecided"])


def _only_unsteady(words: Sequence[str]) -> bool:
    """Whether a program passed at least once on each kernel, and failed on one."""
    others = [word for word in words if word != "passed"]
    return bool(others) and all(word.startswith("unsteady") for word in others)


def render(swept: Mapping[str, Any], causes: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    why = {one["program"]: " ".join(one["why"].split()) for one in causes}
    changes: Mapping[str, Sequence[str]] = swept["changes"]
    bad = {n: w for n, w in changes.items() if swept["said"][n]}
    lines = [
        _HEAD.format(
            programs=swept["programs"],
            date=swept["date"],
            again=_again(swept),
            same=swept["programs"] - len(changes),
        )
    ]
    for title, some in (
        ("## Fails on some kernel", bad),
        ("## Skipped on some kernel, and passes on the others", changes.keys() - bad.keys()),
    ):
        lines.append(f"{title}\n\n| program | {' | '.join(swept['kernels'])} |\n")
        lines.append("|---" * (len(swept["kernels"]) + 1) + "|\n")
        for name in sorted(some):
            lines.append(f"| {name.removesuffix('.t')} | {' | '.join(changes[name])} |\n")
        lines.append("\n")
        for name in sorted(some):
            lines.append(f"- {name.removesuffix('.t')}: {why.get(name, 'Nobody has looked why.')}")
            said = "; ".join(f"`{text}`" for text in swept["said"][name][:3])
            more = len(swept["said"][name]) - 3
            also = f" and {more} more" if more > 0 else ""
            lines.append(f" It said {said}{also}.\n" if said else "\n")
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
