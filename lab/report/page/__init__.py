# SPDX-License-Identifier: MIT
"""report.html: a run in one file that a browser shows without any network.

What tests and kernels wrote gets into it in two ways only: as text that jinja2 escapes, and as a
JSON block whose strings the page's script sets as text. Its policy allows no script and no style
but those that stand in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...facts.errata import Measured
from ...rules.errata import Erratum
from .reading import Source, gathered, read

__all__ = [
    "FILE",
    "Source",
    "gathered",
    "made",
    "read",
    "render",
    "render_errata",
    "replaced",
    "write",
]

FILE = "report.html"
_HERE = Path(__file__).parent
_FIRST, _CELL, _NARROW, _MARGINS = 260, 92, 58, 60
"""Pixels: of a test's name, of a verdict, of a short one, beside the table with a scroll bar."""


def write(file: Path, sources: Sequence[Source], complaints: Sequence[str] = ()) -> None:
    """Write the page of these runs: all of it or nothing. `complaints` are what the reader is told
    first. Raises OSError, and ImportError where jinja2 is not installed."""
    replaced(file, render(sources, file.absolute().parent, complaints))


def replaced(file: Path, text: str) -> None:
    """Write a page: all of it or nothing. Raises OSError."""
    made = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        made.write_text(text, encoding="utf-8", errors="backslashreplace")
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)


def made(directory: Path, whole: Mapping[str, Any]) -> str:
    """Write the page of the run that ends in this directory, and say where it is. A run is not lost
    for want of a page, so that what kept it from being written is said in the same place."""
    file = directory / FILE
    try:
        write(file, [Source(directory, json.loads(json.dumps(whole)))])
    except ImportError:
        return f"page: {file} was not written: jinja2 is not installed"
    except OSError as error:
        return f"page: {file} was not written: {error.strerror}"
    return f"page: {file}"


def render(sources: Sequence[Source], base: Path, complaints: Sequence[str] = ()) -> str:
    """The page of these runs, for a file in the directory `base`. Raises ImportError where jinja2
    is not installed."""
    from .model import model
    from .times import clock, times

    found = model(sources, base, complaints)
    details = found.details
    data = {
        "tests": details.tests,
        "verdicts": details.verdicts,
        "kernels": details.kernels,
        "cells": details.cells,
    }
    return filled(
        "page.html.j2",
        data,
        style=_room_for(len(found.columns), _CELL),
        model=found,
        times=times(found.columns),
        runs=[_head(source) for source in sources],
        clock=clock,
    )


def render_errata(errata: Sequence[Erratum], rows: Sequence[Measured]) -> str:
    """The page of what was found of errata on releases. Raises ImportError where jinja2 is not
    installed."""
    from .errata import model

    found = model(errata, rows)
    data = {
        "tests": found.details.tests,
        "verdicts": found.details.verdicts,
        "kernels": found.details.kernels,
        "cells": found.details.cells,
        "badges": "fs",
    }
    style = _room_for(len(found.columns), _NARROW)
    return filled("errata.html.j2", data, style=style, model=found)


def filled(
    template: str,
    data: Mapping[str, Any],
    *,
    style: str = "",
    beside: Path = _HERE,
    **values: Any,
) -> str:
    """A template with its values, the style, and the script with its data; `style` is put behind
    what all pages share. A template of another's lies in the directory `beside`, and has the parts
    of ours. Raises ImportError where jinja2 is not installed."""
    # Not at the top: it takes some 40 ms, which a run that begins has no use for.
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE, beside]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    style = shared + style
    return environment.get_template(template).render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=htmlsafe_json_dumps(data, separators=(",", ":"), ensure_ascii=False),
        **values,
    )


def _room_for(columns: int, cell: int) -> str:
    """The style of a table with so many columns. Where it is not wider than the window, the names
    of its kernels stay in sight."""
    width = _FIRST + columns * cell + _MARGINS
    return (
        f"#matrix {{ --first: {_FIRST}px; --cell: {cell}px; --columns: {columns}; }}\n"
        f"@media (min-width: {width}px) {{ .tests {{ overflow: visible; }} #matrix thead "
        "{ position: sticky; top: calc(33px + var(--filter)); z-index: 3; } }\n"
    )


def _head(source: Source) -> dict[str, Any]:
    from .shown import line

    whole = source.whole
    words = {0: "proved", 1: "disproved", 3: "not proved", 130: "interrupted"}
    code = whole["exit"]["code"]
    took = int(whole["seconds"])
    return {
        "word": words.get(code, "not proved"),
        "code": code,
        "why": line(whole["exit"]["why"], 600),
        "ended": line(whole["ended"], 40).replace("T", " ").replace("Z", " UTC"),
        "took": f"{took // 60} min {took % 60} s" if took >= 60 else f"{took} s",
        "directory": line(source.directory.absolute().name, 120),
    }


def _hash(text: str) -> str:
    """As a policy names an inline script: its text between the tags."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
