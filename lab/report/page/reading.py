# SPDX-License-Identifier: MIT
"""Reads runs back from their directories: what somebody else's machine or hand has made of a
results.json is held against its form before it is shown."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import LabError
from ...facts.verdicts import Verdict
from .. import content, previous

Form = Any
"""A type, a function that says what is wrong, `{key: form}` (a key that ends in ? may be missing),
`[form]` for a list, or one of the two below."""


@dataclass(frozen=True, slots=True)
class _Each:
    """An object with such values, whatever its keys are."""

    form: Form


@dataclass(frozen=True, slots=True)
class _Maybe:
    """Such a value or null."""

    form: Form


@dataclass(frozen=True, slots=True)
class Source:
    """One run."""

    directory: Path
    """Of its files."""
    whole: Mapping[str, Any]
    """Its results.json."""
    said: str = ""
    """What contradicts itself in it, as a sentence; empty if nothing does."""


def read(place: Path) -> Source:
    """The run in a directory, or of a results.json. Raises LabError in one sentence."""
    file = place / content.FILE if place.is_dir() else place
    if not file.is_file():
        raise LabError(
            f"there is no run in {place}: it has no {content.FILE}"
            if place.is_dir()
            else f"there is no run in {place}: there is no such directory",
            hint="name the directory of a run, as in lab-results/latest",
        )
    try:
        return parse(file.read_bytes(), file)
    except OSError as error:
        raise LabError(f"{file} cannot be read: {error.strerror}") from error


def gathered(places: Iterable[Path]) -> tuple[list[Source], list[str]]:
    """All runs below these directories, and a sentence about each that cannot be shown. A copy of
    a file (`latest`, where links became directories) counts once."""
    sources: list[Source] = []
    complaints: list[str] = []
    seen: set[str] = set()
    for place in places:
        files = sorted(place.rglob(content.FILE)) if place.is_dir() else [place]
        if not files or not files[0].is_file():
            complaints.append(f"there is no run in {place}: it has no {content.FILE}")
            continue
        for file in files:
            try:
                data = file.read_bytes()
                key = hashlib.sha256(data).hexdigest()
                if key not in seen:
                    seen.add(key)
                    sources.append(parse(data, file))
            except OSError as error:
                complaints.append(f"{file} cannot be read: {error.strerror}")
            except LabError as error:
                complaints.append(str(error))
    return sources, complaints


def parse(data: bytes, file: Path) -> Source:
    """What this file says. Raises LabError in one sentence."""
    try:
        whole = json.loads(data)
    except ValueError as error:
        raise LabError(
            f"{file} is no JSON, cut off or edited: {error}", hint="run the tests again"
        ) from error
    except RecursionError as error:
        raise LabError(f"{file} is nested too deeply to be a {content.FILE}") from error
    version = whole.get("version") if isinstance(whole, dict) else None
    if isinstance(whole, dict) and version != content.VERSION:
        raise LabError(
            f"{file} is of version {version!r}, and this lab reads {content.VERSION}",
            hint="make the page with the lab that the run was made with",
        )
    if wrong := next(_wrong(whole, _WHOLE, ""), ""):
        raise LabError(f"{file} is not as the lab writes it, so it was edited: {wrong}")
    return Source(file.parent, whole, _contradiction(file, whole))


def _contradiction(file: Path, whole: Mapping[str, Any]) -> str:
    for name, leg in whole["legs"].items():
        own = content.own_conclusion(leg)
        if leg["exit"]["code"] == 0 and own.code != 0:
            return f"{file} says that {name} is proved, and its verdicts say: {own.why}"
        if len(leg["verdicts"]) != leg["selected"]:
            number = len(leg["verdicts"])
            return f"{file} has {number} verdicts of {name}, and says {leg['selected']}"
    return ""


# -- the form --------------------------------------------------------------------------------


def _wrong(value: Any, form: Form, where: str) -> Iterator[str]:
    """What is not as it has to be, a sentence each."""
    name = where or "it"
    match form:
        case dict():
            if not isinstance(value, dict):
                yield f"{name} is {_short(value)}, not an object"
                return
            for key, inner in form.items():
                plain = key.rstrip("?")
                if plain in value:
                    yield from _wrong(value[plain], inner, f"{where}.{plain}".lstrip("."))
                elif plain == key:
                    yield f"{name} has no {key}"
        case list():
            if not isinstance(value, list):
                yield f"{name} is {_short(value)}, not a list"
                return
            for number, one in enumerate(value):
                yield from _wrong(one, form[0], f"{where}[{number}]")
        case _Each():
            if not isinstance(value, dict):
                yield f"{name} is {_short(value)}, not an object"
                return
            for key, one in value.items():
                yield from _wrong(one, form.form, f"{where}[{_short(key)}]")
        case _Maybe():
            if value is not None:
                yield from _wrong(value, form.form, where)
        case type():
            if not isinstance(value, form) or (form is int and isinstance(value, bool)):
                yield f"{name} is {_short(value)}"
        case _:
            check: Callable[[Any], bool] = form
            if not check(value):
                yield f"{name} is {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _seconds(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and 0 <= value < 1e9


def _verdict(value: Any) -> bool:
    return isinstance(value, str) and value in set(Verdict)


def _index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _file(value: Any) -> bool:
    """A file of the run's own: a page must not take in what else this machine has."""
    if not isinstance(value, str) or "\0" in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts


def _part(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _file(value.get("file"))
        and _index(value.get("begin"))
        and _index(value.get("end"))
        and value["begin"] <= value["end"]
    )


_TEXTS: Sequence[Form] = [str]
_MAYBE_BOOL = _Maybe(bool)
_EXIT = {"code": int, "why": str}
_GUEST = {
    "release": str,
    "nonce": str,
    "accel": str,
    "accel_reason": str,
    "entry": str,
    "boot_seconds": _seconds,
    "slowdown": _seconds,
    "wishes": _TEXTS,
    "files": _file,
    "number?": _index,
    "began?": _seconds,
    "up?": _seconds,
    "ended?": _seconds,
}
_RUN = {
    "verdict": _verdict,
    "seconds": _seconds,
    "why": str,
    "subtests?": [dict],
    "began?": _seconds,
    "ran_in?": _index,
    "output?": _Maybe(_part),
    "kernel_log?": _Maybe(_part),
    "complaints?": _TEXTS,
    "hang?": _Maybe(_part),
}
_RECORD = {
    **_RUN,
    "runs?": [_RUN],
    "guest?": _TEXTS,
    "issues?": [int],
    "reproduce?": str,
}
_CHANGES: Sequence[Form] = [
    {
        "kernel": str,
        "test": str,
        "before": _Maybe(_verdict),
        "now": _Maybe(_verdict),
        "why": str,
    }
]
_STAND = {"release": _Maybe(str), "exit": _Maybe(int)}
_PREVIOUS = {
    "directory": str,
    "ended": str,
    "kernels": [{"asked": str, "before": _STAND, "now": _STAND}],
    **dict.fromkeys(previous.KINDS, _CHANGES),
}
_CAPABILITY = {
    "declared": _MAYBE_BOOL,
    "accepted": _MAYBE_BOOL,
    "observed": _MAYBE_BOOL,
    "promised": _MAYBE_BOOL,
    "basis": _Maybe(str),
    "from": _Maybe(str),
    "surprise": bool,
}
_LEG = {
    "name": str,
    "asked": str,
    "kernel": _Maybe(
        {"upstream": str, "package": str, "release": str, "source": str, "locked": bool}
    ),
    "narrowed": _TEXTS,
    "contract": _Maybe({"surprises": [{"capability": str, "why": str}], "notes": _TEXTS}),
    "launcher": _Maybe(str),
    "wishes": _TEXTS,
    "guests": [_GUEST],
    "identity": _Each(str),
    "probe": _Maybe({"error": _Maybe(str), "capabilities": _Each({"evidence": dict, "note": str})}),
    "capabilities": _Each(_CAPABILITY),
    "errata": [
        {"id": str, "title": str, "reproducer": str, "listed": _Maybe(str), "verdict": _verdict}
    ],
    "collected": _index,
    "selected": _index,
    "proved": _index,
    "verdicts": _Each(_RECORD),
    "issues": [{"issue": int, "word": str, "tests": int, "proved": int, "absent": int}],
    "problems": _TEXTS,
    "faults": _TEXTS,
    "notes": _TEXTS,
    "seconds": _seconds,
    "exit": _EXIT,
}
_WHOLE = {
    "ended": str,
    "seconds": _seconds,
    "previous?": _Maybe(_PREVIOUS),
    "notes?": _TEXTS,
    "legs": _Each(_LEG),
    "exit": _EXIT,
}
