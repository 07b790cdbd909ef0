# SPDX-License-Identifier: MIT
"""Puts a table between two markers of a page, and touches nothing else of it."""

from __future__ import annotations

from pathlib import Path

from bench.native import ROOT

BEGIN = "<!-- bench {name}: written by make, begin -->"
END = "<!-- bench {name}: end -->"


def filled(text: str, name: str, content: str) -> str:
    """The page with `content` between the markers of `name`; raises `ValueError` without them."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"the page needs {begin!r} and, after it, {end!r}, once each")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{tail}"


def show(path: Path, name: str, content: str, *, write: bool) -> None:
    """Print it, and write it into the page if that is asked for."""
    print(content, flush=True)
    if write:
        path.write_text(filled(path.read_text(), name, content))
        print(f"\nwritten to {path.relative_to(ROOT)}")
