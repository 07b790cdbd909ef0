# SPDX-License-Identifier: MIT
"""What is sent to a guest: the files of a repository, and the part of the lab that runs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import project as projects
from ..project import Project
from ..wishes import LEAST_MEMORY_MIB
from . import tree
from .tree import MANIFEST, PACKAGES, Manifest

PACKAGE = __name__.partition(".")[0]
"""What the lab is imported as: by its folder in its own repository, else as it is installed."""
HOME = Path(__file__).parents[1]
# fmt: off
IN_GUESTS: Mapping[str, Sequence[str]] = {
    "": ("__init__", "errors"),
    "facts": ("__init__", "errata", "probed", "verdicts"),
    "rules": ("__init__", "dmesg", "needs"),
    "remote": ("__init__", "identity", "tree", "wire"),
    "programs": (
        "__init__", "confinement", "items", "judgement", "running", "spec", "tap",
    ),
    "suite": (
        "__init__", "errata", "guest_side", "hookspecs", "knows", "left", "plugin", "printed",
        "selection", "skips", "stash", "wire", "xdist_names",
    ),
    "errata": ("__init__", "reproduce"),
}
# fmt: on
"""The modules of the lab that run inside, by room: the pytest plugin in its mode for guests, the
reproducers' runner, and what they import. Each one more costs time in every guest."""
MEMORY_MIB = 768
"""What a guest has that is not asked for more."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A tree in memory, read once, so that its tar and its hash are of the same bytes."""

    contents: Mapping[PurePosixPath, bytes]
    sources: Mapping[PurePosixPath, Path]
    """Where on this machine each file was read."""
    manifest: Manifest

    def hashes(self) -> tuple[str, str]:
        """As `tree.hashes`."""
        return tree.hashes(self.contents, self.manifest.products)

    def bytecode(self) -> dict[PurePosixPath, bytes]:
        """As `tree.bytecode`."""
        return tree.bytecode(self.contents, self.sources)

    def pack(self, compiled: Mapping[PurePosixPath, bytes] | None = None) -> bytes:
        """As `tree.pack`, with its manifest and the compiled modules."""
        more = {**(compiled or {}), MANIFEST: self.manifest.to_json()}
        return tree.pack({**self.contents, **more}, self.sources)


def of(project: Project) -> Sending:
    """What a guest gets of this repository and of the lab. Raises UsageError for more than a guest
    has room for."""
    found = projects.travellers(project)
    memory = project.guest.memory_mib or MEMORY_MIB
    # The tree is in the guest's memory, packed and unpacked, beside all that runs there.
    projects.weigh(project, found, most_mib=max(LEAST_MEMORY_MIB, memory) // 2)
    sources = {one.path: project.root / one.path for one in found}
    sources |= {PACKAGES / PACKAGE / path: HOME / path for path in parts()}
    contents = {path: source.read_bytes() for path, source in sources.items()}
    products = tuple(str(one.path) for one in found if one.product)
    manifest = Manifest(tuple(map(str, contents)), products, project.skips_need_proof)
    return Sending(contents, sources, manifest)


def parts() -> Iterator[PurePosixPath]:
    """The files of the lab that run in a guest, relative to its package."""
    for room, modules in IN_GUESTS.items():
        for name in modules:
            yield PurePosixPath(room, f"{name}.py")


def command(words: Sequence[str]) -> list[str]:
    """A command of the table's as it runs here and in guests: `python` is this very Python."""
    first, *rest = words
    return [sys.executable if first in ("python", "python3") else first, *rest]


def search_path(project: Project, place: str) -> str:
    """PYTHONPATH for a process in a guest whose tree is at `place`: the lab, and whatever of the
    repository this Python finds modules in.

    An environment in which the repository is installed in place has the host's paths, which no
    guest has: in a .pth file, or in the finder that setuptools writes.
    """
    found = dict.fromkeys([f"{place}/{PACKAGES}"])
    for directory in (*_installed_in_place(), *sys.path):
        path = Path(directory or os.curdir).resolve()
        if not path.is_relative_to(project.root) or path.is_relative_to(Path(sys.prefix).resolve()):
            continue
        found[os.path.normpath(f"{place}/{path.relative_to(project.root).as_posix()}")] = None
    return os.pathsep.join(found)


def _installed_in_place() -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            yield from (str(Path(path).parent) for path in getattr(module, "MAPPING", {}).values())
