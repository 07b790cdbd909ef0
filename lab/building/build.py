# SPDX-License-Identifier: MIT
"""From sources to a kernel of the cache.

`building/ID` in the cache is the workshop of one tree, repository or package: its lock, its
sources where they are no directory of somebody's, and a directory of object files for each kind of
kernel. That one stays: a build goes on where it was stopped, and the next one compiles what has
changed.
What was built becomes a kernel when everything about it has been checked, and not before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import arch, cache
from ..errors import KernelUnavailable, LabError, UsageError
from ..facts.kernel import BUILT, Flavour, Kernel, series_of, version_key
from ..kernels import built, choice, known, obtain
from ..kernels.model import Release, RemoteFile
from ..kernels.source import SourceUnreachable
from . import equipment, sources
from .configuration import Fragment, configure, fragment
from .kbuild import BuildFailed, Kbuild, full
from .order import CLOUD, Order
from .progress import Progress
from .sources import Sources

_LAYOUT = 1
"""Raised when the way a kernel is built changes, so that older ones are not taken for new."""
_KEY_DIGITS = 12
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""A version is ordered by its numbers, and a hash is to have none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build led to."""

    kernel: Kernel
    compiled: int
    """How many files were compiled; 0 for a kernel that was there."""
    there: bool
    """It had been built before, from the same sources in the same way."""


def build(what: Sources, order: Order, progress: Progress) -> Outcome:
    """Build a kernel, unless the very same one was built before.

    Raises UsageError for sources and symbols that cannot be, MissingTool with all that a build
    lacks here, and LabError for whatever ended it. None of them leaves a kernel behind.
    """
    equipment.check()
    compiler = equipment.compiler()
    with _workshop(what, progress) as (workshop, held):
        try:
            return _build(what, order, progress, compiler, workshop, held)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(workshop) from error
            raise


def _build(
    what: Sources, order: Order, progress: Progress, compiler: str, workshop: Path, held: int
) -> Outcome:
    progress.said(f"looking at {what.origin}")
    pinned = what.pin(workshop)
    # A distribution's configuration is of the nearest series, and the sources tell theirs.
    tree = what.lay(workshop) if order.base == CLOUD else None
    base = _cloud(tree, workshop, held, progress) if tree is not None else ""
    wanted = fragment(order)
    key = _key(pinned, order, base, wanted, compiler)
    if (found := built.record_of(key)) is not None and built.is_whole(found):
        return Outcome(found.release.kernel, 0, True)
    tree = tree or what.lay(workshop)
    kbuild = _kbuild(what, order, pinned, compiler, tree, workshop, held)
    version = _version(kbuild, what)
    progress.said(f"configuring {version}")
    configuration = configure(kbuild, order, base, wanted)
    modules = "CONFIG_MODULES=y" in configuration.splitlines()
    progress.said(f"building {version}{order.local_version}, {order.jobs} files at once")
    targets = [arch.here().kbuild_target, *(["modules"] if modules else [])]
    compiled = kbuild.make(targets, jobs=order.jobs, progress=progress)
    release = kbuild.ask("kernelrelease")
    progress.said(f"packing {release}")
    with cache.scratch() as directory:
        staged = directory / "kernel"
        _stage(kbuild, release, staged, modules=modules, debug_info=order.debug_info)
        # From here on nothing reads the sources any more: what was compiled is of what was pinned.
        if sentence := what.changed():
            raise LabError(
                f"{sentence}; what was built of it is of no known sources, and is not used",
                hint="build again when it is at rest",
            )
        package = directory / f"linux-{release}.tar"
        built.pack(staged, package)
        facts = {
            "sources": what.origin,
            "pinned": pinned,
            "base": order.base,
            "compiler": compiler,
            "config sha256": hashlib.sha256(configuration.encode()).hexdigest(),
        }
        record = built.keep(
            key, _release(key, version, release, package, what.origin), package, facts
        )
    return Outcome(record.release.kernel, compiled, False)


@contextmanager
def _workshop(what: Sources, progress: Progress) -> Iterator[tuple[Path, int]]:
    """The workshop of these sources, and the descriptor of its lock, which is held."""
    name = hashlib.sha256(what.place.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def waiting() -> None:
        progress.said(f"another build has {what.place}: waiting for its end")

    with cache.locked(cache.build_lock(name), waiting=waiting) as descriptor:
        workshop = cache.root() / "building" / name
        workshop.mkdir(parents=True, exist_ok=True)
        sources.check_place(workshop)
        (workshop / "place").write_text(f"{what.place}\n")  # used today: not to be pruned
        yield workshop, descriptor


def _kbuild(
    what: Sources, order: Order, pinned: str, compiler: str, tree: Path, workshop: Path, held: int
) -> Kbuild:
    """kbuild with a directory of object files that are of these sources, or older than they are."""
    kind = json.dumps([order.base, order.debug, order.debug_info, dict(order.settings), compiler])
    name = f"objects-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
    objects, log = workshop / name, workshop / f"{name}.log"
    of, index = workshop / f"{name}.of", workshop / f"{name}.index"
    try:
        before = of.read_text()
        # The log is written as long as anything is compiled.
        fit = before == pinned or not what.stale(index, log.stat().st_mtime_ns)
    except OSError:
        fit = False
    if not fit:
        of.unlink(missing_ok=True)
        cache.remove(objects)
    objects.mkdir(exist_ok=True)
    what.remember(index)
    of.write_text(pinned)
    log.write_text("")
    return Kbuild(tree, objects, log, held, ccache=equipment.has_ccache())


def _version(kbuild: Kbuild, what: Sources) -> str:
    """What the tree calls itself."""
    try:
        version = kbuild.ask("kernelversion")
    except LabError as error:
        raise UsageError(f"{what.origin} is no kernel tree: {error.message}") from error
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?[\w.+~-]*", version, re.ASCII):
        raise UsageError(f"{what.origin} is no kernel tree: it calls itself {version!r}")
    return version


def _cloud(tree: Path, workshop: Path, held: int, progress: Progress) -> str:
    """Debian's cloud configuration of the series that is nearest to the tree's."""
    objects = workshop / "version"
    objects.mkdir(exist_ok=True)
    version = Kbuild(tree, objects, workshop / "version.log", held).ask("kernelversion")
    of = version_key(series_of(version))
    try:
        offers = [release.kernel for release in choice.SOURCES["debian"].listing()]
    except SourceUnreachable as error:
        raise KernelUnavailable(f"Debian's configuration cannot be had: {error}") from error
    kernels = [one for one in (*known(), *offers) if one.flavour is Flavour.CLOUD]
    if not kernels:
        raise KernelUnavailable(
            "no cloud kernel of Debian's is offered, so none has a configuration"
        )
    older = [one for one in kernels if version_key(one.series) <= of]
    pick = max if older else min
    series = pick((one.series for one in older or kernels), key=version_key)
    some = [one for one in kernels if one.series == series]
    nearest = next((one for one in some if one.locked), some[0])
    progress.said(f"the configuration is that of {nearest.release}")
    return obtain(nearest).config.read_text()


def _key(pinned: str, order: Order, base: str, wanted: Fragment, compiler: str) -> str:
    identity = [
        _LAYOUT,
        arch.here().name,
        pinned,
        order.base,
        hashlib.sha256(base.encode()).hexdigest(),
        wanted.text(),
        compiler,
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _stage(kbuild: Kbuild, release: str, staged: Path, *, modules: bool, debug_info: bool) -> None:
    """Lay out in `staged` what was built. Raises LabError when it is not what it should be."""
    staged.mkdir()
    image = kbuild.objects / arch.here().kbuild_image
    try:
        with image.open("rb") as file:
            text = arch.here().version_text(file) or ""
    except OSError as error:
        raise BuildFailed(f"make made no {arch.here().kbuild_image}: {error.strerror}") from error
    if text.split(" ", 1)[0] != release:
        raise BuildFailed(f"{image} calls itself {text.split(' ', 1)[0]!r}, and make {release!r}")
    shutil.copyfile(image, staged / "vmlinuz")
    shutil.copyfile(kbuild.objects / ".config", staged / "config")
    if debug_info:
        shutil.copyfile(kbuild.objects / "vmlinux", staged / "vmlinux.debug")
    place = staged / "lib/modules" / release
    if modules:
        strip = [] if debug_info else ["INSTALL_MOD_STRIP=1"]
        kbuild.make(["modules_install", f"INSTALL_MOD_PATH={staged}", *strip], jobs=1)
        for name in ("build", "source"):  # they lead to this machine's directories
            (place / name).unlink(missing_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    for name in ("modules.builtin", "modules.order"):
        if not (place / name).exists():
            with suppress(FileNotFoundError):
                shutil.copyfile(kbuild.objects / name, place / name)


def _release(key: str, version: str, release: str, package: Path, origin: str) -> Release:
    match = re.match(r"\d+\.\d+(\.\d+)?", version)
    assert match is not None
    sha256 = cache.digest(package)
    kernel = Kernel(
        series=series_of(match[0]),
        upstream=match[0],
        package=f"{version}-built.{key[:_KEY_DIGITS].translate(_LETTERS)}",
        release=release,
        source=BUILT,
        locked=False,
        verified_by=f"sha256 {sha256} of what was built here from {origin}",
    )
    file = RemoteFile(path=package.name, size=package.stat().st_size, sha256=sha256)
    return Release(kernel=kernel, suite=key, files=(file,))
