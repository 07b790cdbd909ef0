# SPDX-License-Identifier: MIT
"""What ``help()`` says of the public interface, and of the core that is written in C."""

from __future__ import annotations

import ast
import inspect
import pickle
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ioxide
from ioxide._ring import _core

STUB = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def functions(of: ast.Module | ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in of.body if isinstance(node, ast.FunctionDef)}


def is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)


def declared(node: ast.FunctionDef) -> list[tuple[str, Any, bool]]:
    """Name, kind and whether there is a default, for each parameter in the stub."""
    kinds: Any = inspect.Parameter
    given = node.args
    positional = [
        *((argument.arg, kinds.POSITIONAL_ONLY) for argument in given.posonlyargs),
        *((argument.arg, kinds.POSITIONAL_OR_KEYWORD) for argument in given.args),
    ]
    without = len(positional) - len(given.defaults)
    found = [(name, kind, at >= without) for at, (name, kind) in enumerate(positional)]
    if given.vararg:
        found.append((given.vararg.arg, kinds.VAR_POSITIONAL, False))
    found += [
        (argument.arg, kinds.KEYWORD_ONLY, default is not None)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg:
        found.append((given.kwarg.arg, kinds.VAR_KEYWORD, False))
    return found


def actual(function: Any) -> list[tuple[str, Any, bool]]:
    return [
        (parameter.name, parameter.kind, parameter.default is not parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
    ]


def names(kind: type) -> set[str]:
    """What the type itself adds, without Python's own methods."""
    dunder = {"__name__", "__qualname__"}
    return {name for name in vars(kind) if not name.startswith("__")} | (dunder & vars(kind).keys())


@pytest.mark.parametrize("name", CLASSES)
def test_the_stub_is_what_the_core_has(name: str) -> None:
    """The same members, and the same parameters by name, kind and default."""
    kind, stub = getattr(_core, name), CLASSES[name]
    members = functions(stub)
    variables = {
        node.target.id
        for node in stub.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    special = {member for member in members if member in ("__new__", "__buffer__")}

    assert names(kind) == (members.keys() - special) | variables
    for member, node in members.items():
        if is_property(node) or member == "__buffer__":
            continue
        if member == "__new__":
            assert declared(node)[1:] == [
                (parameter, inspect.Parameter.POSITIONAL_ONLY, default)
                if parameter == "connection_type"
                else (parameter, parameter_kind, default)
                for parameter, parameter_kind, default in actual(kind)
            ]
        else:
            # The first one is self, which nobody passes by name.
            assert (member, declared(node)[1:]) == (member, actual(getattr(kind, member))[1:])


@pytest.mark.parametrize("name", CLASSES)
def test_everything_in_the_core_is_described(name: str) -> None:
    kind = getattr(_core, name)
    described = {member for member in names(kind) if inspect.getdoc(vars(kind)[member])}

    assert names(kind) == described
    assert inspect.getdoc(kind)


@pytest.mark.parametrize("name", CLASSES)
def test_types_of_the_core_are_heap_types_that_nobody_changes(name: str) -> None:
    heap, immutable = 1 << 9, 1 << 8  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_IMMUTABLETYPE
    kind = getattr(_core, name)

    assert heap | immutable == kind.__flags__ & (heap | immutable)
    with pytest.raises(TypeError, match="immutable type"):
        kind.added = 1


def ours(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class that ioxide itself defines."""
    for base in kind.__mro__:
        if not base.__module__.startswith("ioxide"):
            continue
        for name, member in vars(base).items():
            # A field of a dataclass is described in its class; Python keeps no text of it.
            if not name.startswith("_") and (
                inspect.isroutine(member)
                or inspect.isgetsetdescriptor(member)
                or isinstance(member, property | staticmethod | classmethod)
            ):
                yield name, getattr(kind, name) if not isinstance(member, property) else member


# Handler is an alias of a type.
@pytest.mark.parametrize("name", [name for name in ioxide.__all__ if name != "Handler"])
def test_everything_public_is_described(name: str) -> None:
    """Each class, method, property and function has a text, and each callable a signature."""
    found = getattr(ioxide, name)
    members = dict(ours(found)) if inspect.isclass(found) else {}

    assert [] == [member for member, value in members.items() if not inspect.getdoc(value)]
    assert inspect.getdoc(found)
    for member in (found, *members.values()):
        if inspect.isroutine(member):
            inspect.signature(member)  # raises ValueError for what has none


def test_help_of_a_method_says_what_it_returns_and_raises() -> None:
    text = inspect.getdoc(ioxide.Connection.recv) or ""

    assert "(self, limit=None, /)" == str(inspect.signature(ioxide.Connection.recv))
    for word in ("at most `limit` bytes", "ConnectionResetError", "ValueError"):
        assert word in " ".join(text.split())


def test_every_exception_of_ioxides_own_is_in_one_module() -> None:
    """Of those that a program can name; the probe and the errata have some of theirs."""
    found = [getattr(ioxide, name) for name in ioxide.__all__]
    raised = [kind for kind in found if inspect.isclass(kind) and issubclass(kind, BaseException)]

    assert len(raised) > 5
    assert {"ioxide.errors"} == {kind.__module__ for kind in raised}


@pytest.mark.parametrize("name", [name for name in ioxide.__all__ if name != "Handler"])
def test_what_is_public_names_where_programs_import_it_from(name: str) -> None:
    """No repr, help() or pickle names a private module."""
    found = getattr(ioxide, name)
    raised = inspect.isclass(found) and found.__qualname__ in vars(ioxide.errors)

    assert ("ioxide.errors" if raised else "ioxide") == found.__module__
    assert found is pickle.loads(pickle.dumps(found))
    assert "._" not in repr(found)


def test_values_are_pickled_by_their_public_names() -> None:
    config = ioxide.ServerConfig(incremental=ioxide.IncrementalConfig(max_connections=2))
    text = pickle.dumps(config)

    assert config == pickle.loads(text)
    assert b"ioxide._" not in text


def test_types_of_a_configuration_can_be_looked_up() -> None:
    """By programs that read one from a file: Python looks in the module that the class names."""
    hints = typing.get_type_hints(ioxide.ServerConfig)

    assert ioxide.IncrementalConfig | None == hints["incremental"]
    assert ioxide.WriteOverflow is hints["write_overflow"]
