# SPDX-License-Identifier: MIT
"""What the lab said of liburing's programs, by itself and under liburing's own runner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ALONE, RUNTESTS = "liburing", "runtests"
"""The two tables of examples/lab-liburing/lab.toml."""
_OVER = ("it did not end within", "runtests.sh: timed out")


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one program."""

    word: str
    """pass, skip, fail, timeout, splat or lost; empty if it has no verdict."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """One kernel."""

    release: str
    date: str
    alone: Mapping[str, Said]
    """By the programs' names, judged by their own exit status."""
    runtests: Mapping[str, Said]
    """The same programs in the same guest, started by runtests.sh; empty where it was not asked."""

    def different(self) -> list[str]:
        """The programs of which the two say different things."""
        return sorted(
            name
            for name, said in self.alone.items()
            if (other := self.runtests.get(name)) is not None and other.word != said.word
        )

    def without_verdict(self) -> list[str]:
        """The programs that one of the two says nothing of."""
        names = self.alone.keys() | self.runtests.keys()
        tables = [self.alone, self.runtests] if self.runtests else [self.alone]
        return sorted(n for n in names if any(n not in t or not t[n].word for t in tables))


def word_of(verdict: str, why: str) -> str:
    """A verdict of the lab's in the words of the page."""
    if verdict == "failed":
        return "timeout" if why.endswith(_OVER[1]) or why.startswith(_OVER[0]) else "fail"
    return {"passed": "pass", "skipped": "skip"}.get(verdict, verdict.replace("never ran", ""))


def of_results(results: Mapping[str, Any], date: str) -> Measured:
    """What results.json says of one kernel."""
    tables: dict[str, dict[str, Said]] = {ALONE: {}, RUNTESTS: {}}
    for id, found in results["verdicts"].items():
        table, _, name = id.partition("/")
        why = str(found["why"])
        tables[table][name] = Said(word_of(found["verdict"], why), why)
    return Measured(results["kernel"]["upstream"], date, tables[ALONE], tables[RUNTESTS])


def load(path: Path) -> list[Measured]:
    """What was measured before; nothing if nothing was."""
    if not path.exists():
        return []
    return [
        Measured(
            one["release"],
            one["date"],
            *({n: Said(*said) for n, said in one[table].items()} for table in (ALONE, RUNTESTS)),
        )
        for one in json.loads(path.read_text())
    ]


def save(path: Path, measured: Iterable[Measured]) -> None:
    """Keep it, oldest kernel first, a line for each program."""
    kernels = []
    for one in measured:
        tables = []
        for table, said in ((ALONE, one.alone), (RUNTESTS, one.runtests)):
            lines = [
                f"{json.dumps(name)}: {json.dumps(list(asdict(what).values()))}"
                for name, what in sorted(said.items())
            ]
            whole = "{\n  " + ",\n  ".join(lines) + "\n }" if lines else "{}"
            tables.append(f' "{table}": {whole}')
        head = f' "release": "{one.release}",\n "date": "{one.date}",\n'
        kernels.append("{\n" + head + ",\n".join(tables) + "\n}")
    path.write_text("[\n" + ",\n".join(kernels) + "\n]\n")


def in_order(measured: Sequence[Measured]) -> list[Measured]:
    """By their releases."""
    return sorted(measured, key=lambda one: [int(part) for part in one.release.split(".")])
