# SPDX-License-Identifier: MIT
"""The run before this one of the same selection, and what has changed since."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..facts.verdicts import ExitCode, Verdict, good
from . import content

HEAD = 1024
"""So many bytes of a file tell what it is."""
MOST_SHOWN = 20
"""So many changes of one kind are shown; results.json has all."""
KINDS: Mapping[str, str] = {
    "newly_failing": "newly failing",
    "mended": "mended",
    "changed": "changed",
    "new": "new",
    "vanished": "vanished",
}
"""The kinds of changes in results.json, in the order in which they are told."""


def find(base: Path, own: Path, selection: str) -> tuple[Path | None, dict[str, Any], list[str]]:
    """The directory and the results of the newest run below `base` that had this selection, was not
    interrupted, and in which some test ran; and a sentence if a newer file could not be used. `own`
    is this run's directory. None and nothing if there is no such run."""
    unusable: list[str] = []
    found: tuple[Path | None, dict[str, Any]] = None, {}
    try:
        places = sorted((p for p in base.iterdir() if not p.is_symlink()), reverse=True)
    except OSError:
        places = []
    for place in places:
        if place == own or not (file := place / content.FILE).is_file():
            continue
        try:
            whole = _read(file, selection)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unusable.append(f"{file} is not compared with this run: {_why(error)}")
            continue
        if whole is not None:
            found = place, whole
            break
    more = f"; nor are {len(unusable) - 1} more files" if len(unusable) > 1 else ""
    return *found, [f"{text}{more}" for text in unusable[:1]]


def _read(file: Path, selection: str) -> dict[str, Any] | None:
    """The results if they are of this selection and of use. Raises what a broken file raises."""
    with file.open("rb") as stream:
        head = stream.read(HEAD).decode("utf-8", "replace")
    version = re.search(r'"version": *(\d+)', head)
    of = re.search(r'"selection": *(?:"(\w+)"|null)', head)
    if version and of and of[1] != selection and int(version[1]) == content.VERSION:
        return None
    whole = json.loads(file.read_text(encoding="utf-8"))
    if whole["version"] != content.VERSION:
        raise ValueError(
            f"it is of version {whole['version']}, and this lab writes {content.VERSION}"
        )
    if whole.get("selection") != selection or whole["exit"]["code"] == ExitCode.INTERRUPTED:
        return None
    ran = False
    for leg in whole["legs"].values():  # whether it is what it looks like
        _kernel(leg), leg["asked"]
        verdicts = {Verdict(one["verdict"]) for one in leg["verdicts"].values()}
        ran |= bool(verdicts - {Verdict.NEVER_RAN})
    return dict(whole) if ran else None


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is broken at line {error.lineno}: {error.msg}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def changes(directory: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What has changed between the results `before`, which are in `directory`, and those of now."""
    old = {leg["asked"]: leg for leg in before["legs"].values()}
    new = {leg["asked"]: (name, leg) for name, leg in now["legs"].items()}
    found: dict[str, Any] = {
        "directory": directory,
        "ended": before["ended"],
        "kernels": [],
        **{kind: [] for kind in KINDS},
    }
    # The names are the same, but two of them may have been one kernel in one of the runs.
    for asked in dict.fromkeys([*new, *old]):
        was, (name, leg) = old.get(asked), new.get(asked, ("", None))
        told = (_kernel(was), _kernel(leg))
        if told[0] != told[1]:
            found["kernels"].append({"asked": asked, "before": told[0], "now": told[1]})
        if not (was and leg and was["kernel"] and leg["kernel"]):
            continue
        for test in dict.fromkeys([*leg["verdicts"], *was["verdicts"]]):
            one, other = was["verdicts"].get(test), leg["verdicts"].get(test)
            words = (one and one["verdict"], other and other["verdict"])
            if words[0] != words[1]:
                found[_kind(*words)].append(
                    {
                        "kernel": name,
                        "test": test,
                        "before": words[0],
                        "now": words[1],
                        "why": other["why"] if other else "",
                    }
                )
    return found


def _kernel(leg: Mapping[str, Any] | None) -> dict[str, Any]:
    if leg is None:
        return {"release": None, "exit": None}
    kernel = leg["kernel"]
    return {"release": kernel and kernel["release"], "exit": leg["exit"]["code"]}


def _kind(before: str | None, now: str | None) -> str:
    if before is None:
        return "new"
    if now is None:
        return "vanished"
    if Verdict.NEVER_RAN in (before, now) or good(before) == good(now):
        return "changed"
    return "mended" if good(now) else "newly_failing"


def nothing(found: Mapping[str, Any]) -> bool:
    """Whether nothing has changed."""
    return not found["kernels"] and not any(found[kind] for kind in KINDS)


def told(found: Mapping[str, Any]) -> list[str]:
    """The changes as lines, without the directory of the run before."""
    lines = []
    for kind, words in KINDS.items():
        listed: Sequence[Mapping[str, Any]] = found[kind]
        for one in listed[:MOST_SHOWN]:
            verdicts = [one["before"] or "", one["now"] or ""]
            shown = ", now ".join(filter(None, verdicts))
            why = f": {one['why']}" if one["why"] else ""
            lines.append(f"{words}: {one['kernel']} {one['test']}: {shown}{why}")
        if (left := len(listed) - MOST_SHOWN) > 0:
            lines.append(f"{words}: {left} more, which are in {content.FILE}")
    for one in found["kernels"]:
        before, now = one["before"], one["now"]
        parts = [
            f"{key} {before[key] if before[key] is not None else 'none'}, "
            f"now {now[key] if now[key] is not None else 'none'}"
            for key in ("release", "exit")
            if before[key] != now[key]
        ]
        lines.append(f"{one['asked']}: {'; '.join(parts)}")
    return lines
