# SPDX-License-Identifier: MIT
"""The configuration of a kernel that is built: a base, what the lab needs, what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import arch
from ..errors import UsageError
from .kbuild import BuildFailed, Kbuild
from .order import DEFCONFIG, Order

_HERE = Path(__file__).parent
_LINE = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Fragment:
    """What is put behind the base."""

    needed: Mapping[str, str]
    """Symbol -> the value that it must have in the end."""
    wished: Mapping[str, str]
    """The same of what may come out otherwise."""
    asked: frozenset[str]
    """Those of `needed` that a person asked for."""

    def text(self) -> str:
        """As lines of a configuration; of two about one symbol the last counts."""
        return "".join(map(_line, *zip(*{**self.wished, **self.needed}.items(), strict=True)))


def fragment(order: Order) -> Fragment:
    """What the lab and `order` want behind the base."""
    lines = (_HERE / "lab.config").read_text()
    if order.debug:
        lines += (_HERE / "debug.config").read_text()
    lines += "\n".join(arch.here().kconfig) + "\n"
    found = read(lines)
    needed = {symbol: value for symbol, value in found.items() if value != "n"}
    wished = {symbol: value for symbol, value in found.items() if value == "n"}
    needed["CONFIG_LOCALVERSION"] = f'"{order.local_version}"'
    info = "DWARF_TOOLCHAIN_DEFAULT" if order.debug_info else "NONE"
    needed[f"CONFIG_DEBUG_INFO_{info}"] = "y"
    for symbol, value in order.settings.items():
        wished.pop(symbol, None)
        needed[symbol] = value
    return Fragment(needed, wished, frozenset(order.settings))


def read(text: str) -> dict[str, str]:
    """Symbol -> value of a configuration; `n` for one that is not set."""
    return {m[1] or m[3]: m[2] if m[1] else "n" for m in _LINE.finditer(text)}


def configure(kbuild: Kbuild, order: Order, base: str, wanted: Fragment) -> str:
    """Write the configuration into kbuild's object directory; its text. `base` is the text of the
    base, empty for the tree's own defconfig.

    Raises UsageError naming what was asked for and cannot be, BuildFailed naming what the lab
    needs and this tree does not have.
    """
    place = kbuild.objects / ".config"
    if order.base == DEFCONFIG:
        kbuild.make([DEFCONFIG], jobs=1)
        base = place.read_text()
    place.write_text(f"{base}\n{wanted.text()}")
    kbuild.make(["olddefconfig"], jobs=1)
    text = place.read_text()
    found = read(text)
    lost = [symbol for symbol, value in wanted.needed.items() if not _same(found, symbol, value)]
    if lost:
        theirs = [symbol for symbol in lost if symbol in wanted.asked]
        some = theirs or lost
        told = [_explained(kbuild.tree, found, s, wanted.needed[s]) for s in some[:_MOST_NAMED]]
        more = f"; and {len(some) - len(told)} more" if len(some) > len(told) else ""
        sentence = f"the configuration cannot be: {'; '.join(told)}{more}"
        if theirs:
            raise UsageError(sentence)
        raise BuildFailed(sentence, hint="a guest of the lab needs it; see docs/lab-guests.md")
    return text


def _same(found: Mapping[str, str], symbol: str, value: str) -> bool:
    now = found.get(symbol, "n")
    return now == value or (value == "m" and now == "y")


def _line(symbol: str, value: str) -> str:
    return f"# {symbol} is not set\n" if value == "n" else f"{symbol}={value}\n"


def _explained(tree: Path, found: Mapping[str, str], symbol: str, value: str) -> str:
    """Why a symbol has not the value that it should have, as far as the tree tells."""
    now = found.get(symbol, "n")
    became = f"{symbol}={value} came out as {'not set' if now == 'n' else now}"
    found_in = [_read_kconfig(text, symbol.removeprefix("CONFIG_")) for text in _kconfig(tree)]
    blocks = [block for some in found_in for block in some]
    if not blocks:
        return f"{became}: no Kconfig of this tree has it"
    rules = [rule for block in blocks for rule in block.rules]
    if not rules:
        prompt = any(block.prompt for block in blocks)
        return became + (
            ", though it depends on nothing by itself" if prompt else ": only other symbols set it"
        )
    rule = " && ".join(f"({r})" if "||" in r else r for r in dict.fromkeys(rules))
    names = dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9_]+\b", rule))
    off = [name for name in names if found.get(f"CONFIG_{name}", "n") == "n"]
    state = f", of which not set: {', '.join(off)}" if off else ""
    return f"{became}: it depends on {rule}{state}"


def _kconfig(tree: Path) -> Iterator[str]:
    """The texts of a tree's Kconfig files."""
    for path in sorted(tree.rglob("Kconfig*")):
        with suppress(OSError):
            if path.is_file():
                yield path.read_text(errors="replace").replace("\\\n", " ")


@dataclass(frozen=True, slots=True)
class _Block:
    """What a Kconfig file says of a symbol in one place."""

    rules: tuple[str, ...]
    """What it depends on: by itself, and by the `if` around it."""
    prompt: bool
    """Whether a person may set it."""


def _read_kconfig(text: str, name: str) -> list[_Block]:
    """The places of a Kconfig file that define a symbol (Documentation/kbuild/kconfig-language)."""
    if name not in text:
        return []
    around: list[str] = []
    found: list[_Block] = []
    ours: list[str] | None = None
    for line in [*text.splitlines(), "endmenu"]:
        words = line.split()
        if line[:1].strip() and not line.startswith("#"):  # an entry begins, and ends the last one
            if ours is not None:
                body = "\n".join(ours)
                rules = re.findall(r"^\s+depends on (.+?)\s*$", body, re.M)
                prompt = re.search(r'^\s+(?:bool|tristate|string|int|hex|prompt)\s+"', body, re.M)
                found.append(_Block((*around, *rules), prompt is not None))
                ours = None
            if words[0] == "if":
                around.append(" ".join(words[1:]))
            elif words[0] == "endif" and around:
                around.pop()
            elif words[0] in ("config", "menuconfig") and words[1:2] == [name]:
                ours = []
        elif ours is not None:
            ours.append(line)
    return found
