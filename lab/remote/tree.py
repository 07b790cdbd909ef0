# SPDX-License-Identifier: MIT
"""The tree a guest runs: which files, their hash, and the tar that carries them.

The same hash is made on the host of what it sends and in the guest of what was unpacked there, so
equal hashes mean equal sources and equal build products.  What is sent is in `sending`.  Standard
library only: the guest imports this.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import marshal
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

OWN = PurePosixPath(".lab")
"""In a guest's tree: what is the lab's own. No repository's file is called so."""
PACKAGES = OWN / "packages"
"""Below it, the lab's package: as much of it as runs in a guest."""
MANIFEST = OWN / "sent.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was sent to a guest, as the guest is told."""

    files: tuple[str, ...]
    """All of the tree that is hashed, this list not among them."""
    products: tuple[str, ...]
    """Those of them that are build products."""
    skips_need_proof: bool = False

    @classmethod
    def here(cls, root: Path) -> Manifest:
        """The one that came with the tree at `root`. Raises OSError, ValueError."""
        raw = json.loads((root / MANIFEST).read_text())
        return cls(tuple(raw["files"]), tuple(raw["products"]), raw["skips_need_proof"] is True)

    def to_json(self) -> bytes:
        """What `here` reads."""
        return json.dumps(asdict(self)).encode()


def contents_here(root: Path, manifest: Manifest) -> dict[str, bytes]:
    """What is at `root` of the files that were sent; what is missing there is left out."""
    found = {}
    for name in manifest.files:
        with contextlib.suppress(OSError):
            found[name] = _content(f"{root}/{name}")
    return found


def _content(path: str) -> bytes:
    """What is in a file. pathlib and a buffered file would be the half of the time in a guest that
    proves itself. Raises OSError, for what is no file, too."""
    # Not to wait for ever where a test has put a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def hashes(
    tree: Mapping[str, bytes] | Mapping[PurePosixPath, bytes],
    products: Iterable[str | PurePosixPath] = (),
) -> tuple[str, str]:
    """sha256 of the tree (names and contents) and of the build products in it.

    The second is the empty string when there is none.
    """
    made = {str(path): hashlib.sha256(data).hexdigest() for path, data in tree.items()}

    def of(names: Iterable[str]) -> str:
        # The two sides find the files in different orders. A name need not be UTF-8; the guest has
        # it byte for byte.
        lines = "".join(f"{name}\0{made[name]}\n" for name in sorted(names))
        return hashlib.sha256(os.fsencode(lines)).hexdigest()

    built = made.keys() & {str(path) for path in products}
    return of(made), of(built) if built else ""


@contextmanager
def bytecode_kept(directory: Path) -> Iterator[None]:
    """Where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE), write it below here.

    The tree stays as clean as it is to be, and neither guests nor the next run here compile what
    was compiled.
    """
    before = sys.dont_write_bytecode, sys.pycache_prefix
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, os.fspath(directory)
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.pycache_prefix = before


def bytecode(
    tree: Mapping[PurePosixPath, bytes], sources: Mapping[PurePosixPath, Path]
) -> dict[PurePosixPath, bytes]:
    """The compiled forms of the tree's modules that Python and pytest keep, as if beside them.

    Only those that name the hash of the very source in `tree`, and make Python compare it wherever
    they are used (PEP 552): a time and a size are those of another source, too. Compiling, and
    pytest's rewriting of assertions, took half of a guest's start under emulation. pytest (9.2) has
    just rewritten the tests that it collected; what else is not kept in this form is compiled here.
    """
    found = {}
    tag = sys.implementation.cache_tag
    for path, data in tree.items():
        if path.suffix != ".py" or path not in sources:
            continue
        source = sources[path]
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


def bytecode_here(root: Path) -> dict[str, bytes]:
    """Every compiled file below `root`, whatever it is of."""
    return {name: _content(f"{root}/{name}") for name in _below(root) if name.endswith(".pyc")}


def strangers_here(root: Path, manifest: Manifest) -> list[str]:
    """What Python or pytest would load of the tree at `root` that was not sent there."""
    sent = {*manifest.files, str(MANIFEST)}
    return sorted(name for name in _below(root) if name.endswith(_LOADED) and name not in sent)


_LOADED = (".py", ".so", ".pth", ".ini", ".toml", ".cfg")
"""Ends of the names of what may be loaded. Compiled files are part of the proof."""


def _below(root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        below = directory[len(os.fspath(root)) :].lstrip("/")
        yield from (f"{below}/{name}" if below else name for name in names)


def pack(tree: Mapping[PurePosixPath, bytes], sources: Mapping[PurePosixPath, Path]) -> bytes:
    """Files as a compressed tar; owners are root, times and modes of sources are those on disk."""
    import tarfile  # not in guests, where it was a tenth of a second of every start

    buffer = io.BytesIO()
    # busybox (1.35), which unpacks it, passes over what PAX says of long names.
    with tarfile.open(
        fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=3
    ) as tar:
        for path, data in tree.items():
            member = tarfile.TarInfo(str(path))
            member.size = len(data)
            if path in sources:  # bytecode is judged by its header
                status = sources[path].stat()
                member.mode, member.mtime = status.st_mode & 0o777, int(status.st_mtime)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
