# SPDX-License-Identifier: MIT
"""The tree a guest runs: which files, their hash, and the tar that carries them.

The same walk and hash run on the host over the repository and in the guest over what was unpacked
there, so equal hashes mean equal sources and an equal extension module.  Standard library only:
the guest imports it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import marshal
import os
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

CODE = ("ioxide", "lab", "tests", "conftest.py", "pyproject.toml")
"""What of the repository goes to a guest."""

HOST_TESTS = ("tests/lab", "tests/differential")
"""Tests that are never sent to a guest: the lab's own, which boot guests, and those that compare
two event loops and wait a hundred times for nothing to happen: minutes under emulation."""

GUEST_PARTS_OF_LAB = (
    "lab/__init__.py",
    "lab/facts",
    "lab/rules",
    "lab/remote",
    "lab/programs",
    "lab/suite",
    "lab/errata/__init__.py",
    "lab/errata/reproduce.py",
)
"""What of the lab runs inside: the pytest plugin, the reproducers' runner and what they import."""

LEFT_OUT_DIRECTORIES = frozenset({"__pycache__", "build", ".pytest_cache", ".hypothesis"})
LEFT_OUT_SUFFIXES = frozenset({".c", ".h", ".o", ".cdef", ".pyc", ".tmp", ".swp"})


def _wanted(relative: PurePosixPath) -> bool:
    if any(relative.is_relative_to(directory) for directory in HOST_TESTS):
        return False
    if relative.parts[0] == "lab":
        return any(relative.is_relative_to(part) for part in GUEST_PARTS_OF_LAB)
    return True


def has(relative: PurePosixPath) -> bool:
    """Whether a file of the repository, named relative to its root, goes to a guest."""
    hidden = not LEFT_OUT_DIRECTORIES.isdisjoint(relative.parts[:-1])
    left_out = hidden or relative.suffix in LEFT_OUT_SUFFIXES
    return relative.parts[0] in CODE and not left_out and _wanted(relative)


def files(root: Path) -> Iterator[PurePosixPath]:
    """The tree's regular files below `root`, relative and sorted."""
    found: list[PurePosixPath] = []
    for name in CODE:
        top = root / name
        if top.is_file():
            found.append(PurePosixPath(name))
        for directory, directories, names in os.walk(top):
            directories[:] = [d for d in directories if d not in LEFT_OUT_DIRECTORIES]
            below = PurePosixPath(Path(directory).relative_to(root).as_posix())
            found += [below / n for n in names if PurePosixPath(n).suffix not in LEFT_OUT_SUFFIXES]
    return iter(sorted(path for path in found if _wanted(path) and (root / path).is_file()))


def is_extension(path: PurePosixPath) -> bool:
    """Whether this is ioxide's built extension module."""
    return path.parent == PurePosixPath("ioxide/_ring") and path.suffix == ".so"


def contents(root: Path) -> dict[PurePosixPath, bytes]:
    """The whole tree in memory, read once, so that its tar and its hash are of the same bytes."""
    return {path: (root / path).read_bytes() for path in files(root)}


def hashes(tree: Mapping[PurePosixPath, bytes]) -> tuple[str, str]:
    """sha256 of the tree (names and contents) and of the built extension in it.

    The second is the empty string when nothing is built.
    """
    whole = hashlib.sha256()
    extension = hashlib.sha256()
    built = False
    for path, data in sorted(tree.items()):  # the two sides find the files in different orders
        digest = hashlib.sha256(data).hexdigest()
        # A name need not be UTF-8; the guest has it byte for byte.
        whole.update(os.fsencode(f"{path}\0{digest}\n"))
        if is_extension(path):
            built = True
            extension.update(os.fsencode(f"{path.name}\0{digest}\n"))
    return whole.hexdigest(), extension.hexdigest() if built else ""


@contextmanager
def bytecode_kept(directory: Path) -> Iterator[None]:
    """Where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE), write it below here.

    The tree stays as clean as it is to be, and guests are spared what they would otherwise compile
    with every start.
    """
    before = sys.dont_write_bytecode, sys.pycache_prefix
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, os.fspath(directory)
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.pycache_prefix = before


def bytecode(root: Path, tree: Mapping[PurePosixPath, bytes]) -> dict[PurePosixPath, bytes]:
    """The compiled forms of the tree's modules that Python and pytest keep, as if beside them.

    Only those that name the hash of the very source in `tree`, and make Python compare it wherever
    they are used (PEP 552): a time and a size are those of another source, too. Compiling, and
    pytest's rewriting of assertions, took half of a guest's start under emulation. pytest (9.2) has
    just rewritten the tests that it collected; what else is not kept in this form is compiled here.
    """
    found = {}
    tag = sys.implementation.cache_tag
    for path, data in tree.items():
        if path.suffix != ".py":
            continue
        source = root / path
        plain = Path(importlib.util.cache_from_source(os.fspath(source)))
        kept = {
            name: name.read_bytes() for name in sorted(plain.parent.glob(f"{path.stem}.{tag}*.pyc"))
        }
        # pytest alone runs the test files; the programs that they start import what is beside them.
        if not path.name.startswith("test_") and not _is_of(kept.get(plain, b""), data):
            with contextlib.suppress(SyntaxError, ValueError):  # the guest says what is wrong
                kept[plain] = _compiled(source, data)
                _keep(plain, kept[plain])
        for name, compiled in kept.items():
            if _is_of(compiled, data):
                found[path.parent / "__pycache__" / name.name] = compiled
    return found


_CHECKED_HASH = b"\x03\0\0\0"
_HEADER = 16


def _is_of(compiled: bytes, source: bytes) -> bool:
    """Whether it says that it is of this source, by its hash and nothing else."""
    return compiled[4:_HEADER] == _CHECKED_HASH + importlib.util.source_hash(source)


def _compiled(path: Path, source: bytes) -> bytes:
    """As `py_compile.compile` with `CHECKED_HASH`, of bytes in memory. Raises SyntaxError."""
    code = compile(source, os.fspath(path), "exec", dont_inherit=True)
    return (
        importlib.util.MAGIC_NUMBER
        + _CHECKED_HASH
        + importlib.util.source_hash(source)
        + marshal.dumps(code)
    )


def _keep(path: Path, compiled: bytes) -> None:
    """Write it where Python looks for it, for the next run, if there it may be written."""
    if sys.dont_write_bytecode:
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(compiled)
        fresh.replace(path)


def bytecode_here(root: Path) -> dict[PurePosixPath, bytes]:
    """Every compiled file below `root`, whatever it is of."""
    paths = sorted(path for name in CODE for path in (root / name).rglob("*.pyc"))
    return {PurePosixPath(p.relative_to(root).as_posix()): p.read_bytes() for p in paths}


def pack(root: Path, tree: Mapping[PurePosixPath, bytes]) -> bytes:
    """Files as a compressed tar; owners are root, times and modes of sources are those on disk."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=3
    ) as tar:
        for path, data in tree.items():
            member = tarfile.TarInfo(str(path))
            member.size = len(data)
            if path.suffix != ".pyc":  # which may be kept elsewhere, and is judged by its header
                status = (root / path).stat()
                member.mode, member.mtime = status.st_mode & 0o777, int(status.st_mtime)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
