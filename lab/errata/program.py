# SPDX-License-Identifier: MIT
"""Which program a measurement was made by, so that it stands as long as that program is the same.

A reproducer's program is its module and what that imports of the directories that the table
follows, the sources that the table names, and what runs it. Comments, docstrings and layout are no
part of it, nor is any other test.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import LabError
from ..project import Errata

_RUNNER = Path(__file__).with_name("reproduce.py")
"""Part of each program."""
_IN_C = re.compile(r'("(?:\\.|[^"\\])*")|/\*.*?\*/|//[^\n]*', re.DOTALL)


def programs(root: Path, errata: Errata, reproducers: Mapping[str, str]) -> dict[str, str]:
    """By erratum, a hash of its reproducer's program; `reproducers` are node ids below `root`.

    Raises LabError for one that is no plain function without arguments: called, an `async def` or a
    generator would run not a line, and an erratum would be absent.
    """
    return {id: _program(root, errata, *node.split("::")) for id, node in reproducers.items()}


def _program(root: Path, errata: Errata, module: str, function: str) -> str:
    path = root / module
    tree = ast.parse(path.read_text(), module) if path.is_file() else ast.Module([], [])
    found = next((one for one in tree.body if getattr(one, "name", "") == function), None)
    if not isinstance(found, ast.FunctionDef):
        raise LabError(f"{module} has no function {function}, a plain one at its top")
    if ast.unparse(found.args):
        raise LabError(f"{module}: {function} wants arguments, which a sweep has not")
    inner = (one for line in found.body for one in ast.walk(line))
    if any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in inner):
        raise LabError(f"{module}: {function} yields, so calling it would run nothing")
    return _sha256(root, errata, module)


def _sha256(root: Path, errata: Errata, module: str) -> str:
    whole = hashlib.sha256()
    whole.update(_meaning(_RUNNER.name, _RUNNER.read_text()).encode())
    for path in sorted({*errata.sources, *_with_imports(root, errata.followed, module)}):
        meaning = _meaning(path, (root / path).read_text())
        whole.update(f"{path}\0{hashlib.sha256(meaning.encode()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _with_imports(root: Path, followed: Sequence[str], module: str) -> set[str]:
    """The module and all that it imports of the followed directories, directly or not."""
    found: set[str] = set()
    todo = [module]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(root, followed, ast.parse((root / path).read_text(), path))
    return found


def _imports(root: Path, followed: Sequence[str], tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported from a package may be a module, too.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            # The file of a dotted name, if it is a module's. The packages it is in hold nothing.
            place = PurePosixPath(*name.split("."))
            for path in (place.with_suffix(".py"), place / "__init__.py"):
                if any(map(path.is_relative_to, followed)) and (root / path).is_file():
                    yield str(path)


def _meaning(path: str, text: str) -> str:
    """The text without what is only there to be read."""
    if not path.endswith(".py"):
        return " ".join(_IN_C.sub(lambda found: found[1] or " ", text).split())
    tree = ast.parse(text, path)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            bare = (one for one in node.body if isinstance(one, ast.Expr))
            texts = [one for one in bare if isinstance(one.value, ast.Constant)]
            node.body = [one for one in node.body if one not in texts]
    return ast.unparse(tree)
