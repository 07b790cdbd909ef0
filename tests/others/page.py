# SPDX-License-Identifier: MIT
"""docs/liburing.md, from what was measured and from the reasons for what differs."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.others.measured import Measured, Said, in_order

_HEAD = """\
<!-- SPDX-License-Identifier: MIT -->
<!-- Written by `make lab-liburing`; edit examples/lab-liburing/differences.toml instead. -->
# liburing's own test programs, kernel by kernel

The programs are those of liburing 2.9, from Debian's source package 2.9-1, built unchanged
([examples/lab-liburing](../examples/lab-liburing/README.md)). Each ran by itself in a guest with
one emulated processor, and on 6.12 once more in the same guest under liburing's `runtests.sh`.
*pass*, *skip* (exit status 77) and *fail* are the program's exit status; a *timeout* was killed;
during a *splat* the kernel complained; what is *lost* took pytest or the guest with it. A cell with
two words differs: first the lab's, then that of `runtests.sh`.

"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Why the lab and runtests.sh say different things of a program."""

    program: str
    releases: tuple[str, ...]
    alone: str
    runtests: str
    why: str

    def explains(self, release: str, name: str, alone: Said, other: Said) -> bool:
        """Whether it is about this."""
        same = (self.program, self.alone, self.runtests) == (name, alone.word, other.word)
        return same and release in self.releases


def differences(path: Path) -> list[Difference]:
    """The reasons that are written down."""
    return [
        Difference(**{**one, "releases": tuple(one["releases"])})
        for one in tomllib.loads(path.read_text()).get("difference", [])
    ]


def faults(measured: Sequence[Measured], known: Sequence[Difference]) -> list[str]:
    """A sentence for each program without a verdict, difference without a reason, and reason
    without a difference."""
    found, used = [], set()
    for one in measured:
        found += [f"{one.release}: {n} has no verdict" for n in one.without_verdict()]
        for name in one.different():
            alone, other = one.alone[name], one.runtests[name]
            reasons = [d for d in known if d.explains(one.release, name, alone, other)]
            used |= {(d.program, one.release) for d in reasons}
            if len(reasons) != 1:
                found.append(
                    f"{one.release}: {name}: {alone.word} by itself and {other.word} under "
                    f"runtests.sh has {len(reasons)} reasons in differences.toml"
                )
    there = {one.release for one in measured}
    found += [
        f"{release}: {d.program} does not differ as differences.toml says"
        for d in known
        for release in d.releases
        if release in there and (d.program, release) not in used
    ]
    return found


def render(measured: Sequence[Measured], known: Sequence[Difference], *, of: int) -> str:
    """The whole page; `of` is how many kernels the example's table has."""
    kernels = in_order(measured)
    names = sorted({name for one in kernels for name in one.alone})
    lines = [_HEAD]
    lines += [f"- Linux {one.release}, {one.date}: {_counts(one.alone)}\n" for one in kernels]
    if len(kernels) < of:
        lines.append(f"\nOf the table's {of} kernels {len(kernels)} is measured so far.\n")
    lines += ["\n| program | ", " | ".join(one.release for one in kernels), " |\n"]
    lines.append("|---" * (len(kernels) + 1) + "|\n")
    for name in names:
        cells = [_cell(one, name) for one in kernels]
        lines.append(f"| {name.removesuffix('.t')} | {' | '.join(cells)} |\n")
    lines.append("\n## What did not pass, and what it said\n\n")
    for one in kernels:
        lines.append(f"Linux {one.release}:\n\n")
        lines += [
            f"- {name.removesuffix('.t')}: {said.word}{_said(said.why)}\n"
            for name, said in sorted(one.alone.items())
            if said.word != "pass"
        ]
        lines.append("\n")
    lines.append("## Where runtests.sh says something else\n\n")
    lines += [
        f"- {d.program.removesuffix('.t')} on {', '.join(d.releases)}: {d.alone} by itself, "
        f"{d.runtests} under `runtests.sh`. {' '.join(d.why.split())}\n"
        for d in known
    ] or ["Nowhere.\n"]
    return "".join(lines)


def _counts(said: Mapping[str, Said]) -> str:
    counts = Counter(one.word for one in said.values())
    return ", ".join(f"{number} {word}" for word, number in counts.most_common())


def _cell(one: Measured, name: str) -> str:
    if name not in one.alone:
        return "-"
    word = one.alone[name].word or "no verdict"
    other = one.runtests.get(name)
    return word if other is None or other.word == word else f"{word}, {other.word or 'no verdict'}"


def _said(why: str) -> str:
    text = " ".join(why.split()).replace("|", "\\|")
    return f": `{text[:160].replace('`', chr(39))}`" if text else ""
