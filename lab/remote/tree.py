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
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

OWN = PurePosixPath(".lab")
"""In a guest's tree: what is the lab's own. No repository's file is called so."""
PACKAGES = OWN / "packages"
"""Below it, the lab's package: as much of it as runs in a guest."""
MANIFEST = OWN / "sent.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was sent to a guest, as the guest is told."""

    files: tuple[PurePosixPath, ...]
    """All of the tree that is hashed, this list not among them."""
    products: tuple[PurePosixPath, ...]
    """Those of them that are build products."""
    skips_need_proof: bool = False

    @classmethod
    def here(cls, root: Path) -> Manifest:
        """The one that came with the tree at `root`. Raises OSError, ValueError."""
        raw = json.loads((root / MANIFEST).read_text())
        files, products = (tuple(map(PurePosixPath, raw[name])) for name in ("files", "products"))
        return cls(files, products, raw["skips_need_proof"] is True)

    def to_json(self) -> bytes:
        """What `here` reads."""
        files, products = (list(map(str, names)) for names in (self.files, self.products))
        skips = self.skips_need_proof
        whole = {"files": files, "products": products, "skips_need_proof": skips}
        return json.dumps(whole).encode()


def contents_here(root: Path, manifest: Manifest) -> dict[PurePosixPath, bytes]:
    """What is at `root` of the files that were sent; what is missing there is left out."""
    names = [name for name in manifest.files if (root / name).is_file()]
    return {name: (root / name).read_bytes() for name in names}


def hashes(
    tree: Mapping[PurePosixPath, bytes], products: Container[PurePosixPath] = ()
) -> tuple[str, str]:
    """sha256 of the tree (names and contents) and of the build products in it.

    The second is the empty string when there is none.
    """
    whole = hashlib.sha256()
    built = hashlib.sha256()
    any_built = False
    for path, data in sorted(tree.items()):  # the two sides find the files in different orders
        digest = hashlib.sha256(data).hexdigest()
        # A name need not be UTF-8; the guest has it byte for byte.
        whole.update(os.fsencode(f"{path}\0{digest}\n"))
        if path in products:
            any_built = True
            built.update(os.fsencode(f"{path}\0{digest}\n"))
    return whole.hexdigest(), built.hexdigest() if any_built else ""


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


def bytecode_here(root: Path) -> dict[PurePosixPath, bytes]:
    """Every compiled file below `root`, whatever it is of."""
    paths = sorted(root.rglob("*.pyc"))
    return {PurePosixPath(p.relative_to(root).as_posix()): p.read_bytes() for p in paths}


def pack(tree: Mapping[PurePosixPath, bytes], sources: Mapping[PurePosixPath, Path]) -> bytes:
    """Files as a compressed tar; owners are root, times and modes of sources are those on disk."""
    import tarfile  # not in guests, where it was a tenth of a second of every start

    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=3
    ) as tar:
        for path, data in tree.items():
            member = tarfile.TarInfo(str(path))
            member.size = len(data)
            if path in sources:  # bytecode is judged by its header
                status = sources[path].stat()
                member.mode, member.mtime = status.st_mode & 0o777, int(status.st_mtime)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
