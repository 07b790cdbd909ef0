# SPDX-License-Identifier: MIT
"""From the table as TOML has it to a `Project`: types, ranges, and what was meant."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .. import wishes
from ..errors import UsageError
from .model import Errata, Program, ProgramFormat, Project
from .positions import Path as Keys
from .positions import lines_of

_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Wrong(ValueError):
    """A value is not what its key wants; the message says what that is."""


class Faults:
    """Collects what is wrong in one file."""

    def __init__(self, file: str, text: str, above: tuple[str, ...]) -> None:
        self.file, self.above = file, above
        self._text = text
        self._found: list[tuple[int, str]] = []
        self._lines: dict[Keys, int] | None = None

    def add(self, keys: Keys, sentence: str) -> None:
        """Something is wrong with what these keys lead to."""
        if self._lines is None:
            self._lines = lines_of(self._text)
        whole: Keys = (*self.above, *keys)
        while whole and whole not in self._lines:
            whole = whole[:-1]
        self._found.append((self._lines.get(whole, 1), sentence))

    def complain(self) -> None:
        """Raise UsageError with a line for each, in their order in the file, if there is one."""
        if not self._found:
            return
        lines = [f"{self.file}:{line}: {what}" for line, what in sorted(self._found)]
        raise UsageError("\n".join(lines))


def project_of(root: Path, file: str, table: object, faults: Faults) -> Project:
    """The project that the table describes; what is wrong in it goes to `faults`."""
    fields = _fields(table, _KEYS | dict.fromkeys(wishes.KEYS, _as_it_is), (), faults)
    guest, wrong = wishes.read({key: fields.pop(key) for key in wishes.KEYS if key in fields})
    for one in wrong:
        faults.add((one.key,), f"{one.key} {one.why}")
    if isinstance(table, dict) and "kernels" not in table:
        faults.add(
            (), 'kernels is missing: name what to test on, such as kernels = ["6.1", "6.12"]'
        )
    if fields.get("contract") and "probe" not in fields:
        faults.add(
            ("contract",),
            "contract is about what a probe sees, and there is no probe: name its command in probe",
        )
    if fields.get("skips_need_proof") and not {"probe", "contract"} <= fields.keys():
        faults.add(
            ("skips-need-proof",), "a skip is proved by the keys probe and contract: name them both"
        )
    return Project(root=root, file=file, guest=guest, **fields)


def _fields(
    table: object, keys: Mapping[str, Callable[..., Any]], above: Keys, faults: Faults
) -> dict[str, Any]:
    """The table's values by the name of their attribute, those that are right."""
    if not isinstance(table, dict):
        faults.add(above, f"{_named(above, faults)} is {_shown(table)}, expected a table")
        return {}
    found = {}
    for key, value in table.items():
        if key not in keys:
            faults.add((*above, key), _unknown(key, keys, above, faults))
            continue
        reader = keys[key]
        try:
            if reader in _NESTED:
                found[key.replace("-", "_")] = reader(value, (*above, key), faults)
            else:
                found[key.replace("-", "_")] = reader(value)
        except Wrong as wrong:
            faults.add((*above, key), f"{key} is {_shown(value)}, expected {wrong}")
    return found


def _unknown(key: str, keys: Mapping[str, object], above: Keys, faults: Faults) -> str:
    normal = key.replace("_", "-").lower()
    close = [normal] if normal in keys else difflib.get_close_matches(normal, keys, 1, 0.6)
    meant = f"; did you mean {close[0]}?" if close else f"; the keys are {', '.join(sorted(keys))}"
    return f"{key} is no key of {_named(above, faults)}{meant}"


def _named(keys: Keys, faults: Faults) -> str:
    words = [str(key) for key in (*faults.above, *keys) if isinstance(key, str)]
    return f"[{'.'.join(words)}]" if words else "the table"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- what a value may be ---------------------------------------------------------------------


def _as_it_is(value: object) -> object:
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong("a string that is not empty")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise Wrong("a list of strings")
    return tuple(value)


def _kernels(value: object) -> tuple[str, ...]:
    try:
        names = _texts(value)
    except Wrong:
        names = ()
    if not names:
        raise Wrong('a list of kernels in quotes, such as ["6.1", "6.12"]')
    return names


def _inside(value: object) -> str:
    path = PurePosixPath(_text(value))
    if path.is_absolute() or ".." in path.parts:
        raise Wrong("a path in the repository, relative to its root")
    return str(path)


def _directories(value: object) -> tuple[str, ...]:
    return (_inside(value),) if isinstance(value, str) else _globs(value)


def _globs(value: object) -> tuple[str, ...]:
    return tuple(_inside(pattern) for pattern in _texts(value))


def _command(value: object) -> tuple[str, ...]:
    try:
        words = shlex.split(value) if isinstance(value, str) else list(_texts(value))
    except ValueError as error:
        raise Wrong(f"a command, and the shell's rules say: {error}") from error
    if not words:
        raise Wrong("a command, as a string or a list of words")
    return tuple(words)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong("true or false")
    return value


def _variable(value: object) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise Wrong("the name of an environment variable")
    return value


def _program_name(value: object) -> str:
    if not isinstance(value, str) or not _PROGRAM.fullmatch(value):
        raise Wrong("a name of letters, digits, dots, dashes and underscores")
    return value


def _format(value: object) -> ProgramFormat:
    try:
        return ProgramFormat(str(value))
    except ValueError:
        close = difflib.get_close_matches(str(value), list(ProgramFormat), 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise Wrong(f"one of {', '.join(ProgramFormat)}{meant}") from None


def _seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e7:
        raise Wrong("a number of seconds above 0")
    return float(value)


def _errata(value: object, above: Keys, faults: Faults) -> Errata | None:
    fields = _fields(value, _ERRATA, above, faults)
    needed = ("list", "reproducers")
    if isinstance(value, dict):
        for key in needed:
            if key not in value:
                faults.add(above, f"{_named(above, faults)} has no {key}")
    if not all(key in fields for key in needed):
        return None
    return Errata(**{"followed": (fields["reproducers"],), **fields})


def _programs(value: object, above: Keys, faults: Faults) -> tuple[Program, ...]:
    if not isinstance(value, list):
        raise Wrong("an array of tables, [[...programs]]")
    found: list[Program] = []
    for number, one in enumerate(value):
        here: Keys = (*above, number)
        fields = _fields(one, _PROGRAM_KEYS, here, faults)
        timeout = fields.pop("timeout", None)
        name = fields.get("name", "")
        if isinstance(one, dict):
            if "name" not in one:
                faults.add(here, f"{_named(here, faults)} has no name")
            if ("directory" in one) == ("command" in one):
                faults.add(here, f"program {name!r}: one of directory and command, and not both")
        if name and any(program.name == name for program in found):
            faults.add((*here, "name"), f"two programs are called {name}")
        if name:
            found.append(Program(**fields, timeout_s=timeout))
    return tuple(found)


_ERRATA: Mapping[str, Callable[..., Any]] = {
    "list": _inside,
    "reproducers": _inside,
    "followed": _directories,
    "sources": _globs,
    "page": _inside,
    "table": _inside,
}
_PROGRAM_KEYS: Mapping[str, Callable[..., Any]] = {
    "name": _program_name,
    "directory": _inside,
    "command": _command,
    "format": _format,
    "timeout": _seconds,
}
_KEYS: dict[str, Callable[..., Any]] = {
    "kernels": _kernels,
    "include": _globs,
    "exclude": _globs,
    "products": _globs,
    "environment-exclude": _texts,
    "plugins": _texts,
    "setup": _command,
    "probe": _command,
    "mask-variable": _variable,
    "contract": _inside,
    "skips-need-proof": _switch,
    "issues": _inside,
    "errata": _errata,
    "dmesg-allow": _inside,
    "by-make": _switch,
    "lock": _inside,
    "programs": _programs,
}
_NESTED: Sequence[Callable[..., Any]] = (_errata, _programs)
"""Readers of tables in the table, which report faults of their own."""
