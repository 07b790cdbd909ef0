# SPDX-License-Identifier: MIT
"""From a name a person types to a kernel's files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace

from ..errors import COMMAND, KernelUnavailable, LabError, UsageError
from ..facts.kernel import BUILT, Flavour, Kernel, age_key, version_key
from . import lock, store
from .built import Built
from .catalogue import Series, catalogue
from .catalogue import series as series_called
from .debian import Debian
from .local import VARIABLE, Local
from .mainline import MIRROR, Mainline
from .model import KernelFiles, Release, newest_first
from .source import FileGone, Source, SourceUnreachable, named

_log = logging.getLogger("lab.kernels")

SOURCES: dict[str, Source] = {
    "local": Local(),
    "debian": Debian(),
    BUILT: Built(),
    "mainline": Mainline(),
}
"""In the order in which they are asked. What was built here a month ago is not what the name of a
series means as long as an archive is at hand that has it, too."""
_ASKED_FOR = frozenset({Flavour.FULL, Flavour.DEBUG})
"""No name means one of these flavours but its own, or a name with the flavour beside it."""
_DEBUG = "+debug"
"""Behind a name: of what it means the flavour `debug`."""

NEWEST = "newest"
_MOST_NAMES = 6


def known() -> tuple[Kernel, ...]:
    """Every locked kernel, newest first; those of the full flavour, which only virtme-ng boots,
    are left out."""
    return tuple(r.kernel for r in lock.read() if r.kernel.flavour is not Flavour.FULL)


def built_here() -> tuple[Kernel, ...]:
    """Every kernel that was built here, newest first. `resolve` and `obtain` take each of them."""
    return tuple(release.kernel for release in SOURCES[BUILT].listing())


def offered(*, fresh: bool = False) -> tuple[Kernel, ...]:
    """Every released kernel that can be booted: the locked ones and all that the sources offer now,
    newest first. `resolve` and `obtain` take each of them. What was built here is in `built_here`.

    Unless `fresh`, a source's answer of the last hours stands for its own. A source that does not
    answer is a warning on the logger `lab.kernels`; KernelUnavailable is raised when none does.
    """
    found = {kernel.identity: kernel for kernel in known()}
    silent = []
    released = [source for name, source in SOURCES.items() if name != BUILT]
    for source in released:
        try:
            releases = source.listing(fresh=fresh)
        except (SourceUnreachable, KernelUnavailable) as error:
            silent.append(str(error))
            continue
        for release in releases:
            if release.kernel.flavour is not Flavour.FULL:
                found.setdefault(release.kernel.identity, release.kernel)
    if len(silent) == len(released):
        raise _unavailable("list", silent)
    for sentence in silent:
        _log.warning("%s", sentence)
    return tuple(sorted(found.values(), key=age_key, reverse=True))


def resolve(name: str, *, flavour: Flavour | None = None) -> Kernel:
    """The kernel meant by `name`, the newest if several fit.

    `name` is "newest", a series ("6.12"), an upstream version ("6.12.107"), a package version, what
    `uname -r` says, or the path, with a slash in it, of a kernel image of this machine's, with the
    directory of its modules behind a colon if it is not found beside it. Locked releases come
    first; any other is looked up in what the sources offer. A name that fits kernels of several
    flavours means Debian's cloud one unless `flavour` says otherwise; `+debug` behind the name says
    it for a kernel that was built so. Raises UsageError listing the
    known ones, and KernelUnavailable when sources had to be asked and did not answer.
    """
    wanted = name.strip()
    if "/" in wanted:
        return _remember(SOURCES["local"].matching(wanted)[0])
    wanted = wanted.removeprefix("v")
    if wanted.endswith(_DEBUG):
        wanted, flavour = wanted.removesuffix(_DEBUG), Flavour.DEBUG
    if found := _built(wanted, flavour):
        return _remember(found)
    locked = [r for r in lock.read() if wanted == NEWEST or named(r.kernel, wanted)]
    if found := _best(locked, wanted, flavour):
        return found.kernel
    tried: list[str] = []
    silent: set[str] = set()
    # A word that is no version is not worth asking the archives of the world.
    for source in SOURCES.values() if re.match(r"\d+\.\d", wanted) else ():
        try:
            releases = source.matching(wanted)
        except (SourceUnreachable, KernelUnavailable) as error:
            tried.append(str(error))
            silent.add(source.name)
            continue
        tried.append(f"{source.name} offers no {wanted}")
        if found := _best(releases, wanted, flavour):
            return _remember(_as_locked(found))
    # A series that neither the catalogue names nor the others have is unknown, whether or not the
    # mainline archive answers: nothing else would tell a slip of the finger from a kernel.
    slip = re.fullmatch(r"\d+\.\d+", wanted) is not None and silent <= {"mainline"}
    if series_called(wanted) is not None or (silent and not slip):
        raise _unavailable(wanted, tried)
    kind = f" of the flavour {flavour}" if flavour else ""
    raise UsageError(
        f"unknown kernel {name!r}{kind}",
        hint=f"known are {', '.join(_names())}; `{COMMAND} kernels list` shows every release"
        " the sources offer",
    )


def _built(wanted: str, flavour: Flavour | None) -> Release | None:
    """The kernel that was built here and that nothing else can be meant by. Raises
    KernelUnavailable for one of the flavour `debug` that nobody has built."""
    releases = SOURCES[BUILT].matching(wanted)
    if flavour is Flavour.DEBUG:
        if found := next((one for one in releases if one.kernel.flavour is flavour), None):
            return found
        raise KernelUnavailable(
            f"no {wanted} of the flavour debug has been built here",
            hint=f"`{COMMAND} kernels build --flavour debug` with --tree, --git or --debian builds"
            " one",
        )
    exact = (one for one in releases if wanted in (one.kernel.release, one.kernel.package))
    return next(exact, None) if flavour is None else None


_RESOLVED: dict[tuple[str, str, str], Release] = {}
"""What this process resolved and no lock names: `obtain` is to take what was shown then."""


def _remember(release: Release) -> Kernel:
    _RESOLVED[release.kernel.identity] = release
    return release.kernel


def _best(releases: Iterable[Release], wanted: str, flavour: Flavour | None) -> Release | None:
    """The newest release of the flavour asked for; without one, a release named exactly, or the
    newest whose flavour need not be asked for."""
    ordered = newest_first(releases)
    for release in ordered:
        if flavour is None and wanted == release.kernel.release:
            return release
        if flavour is None and release.kernel.flavour in _ASKED_FOR:
            continue
        if flavour in (None, release.kernel.flavour):
            return release
    return None


def _as_locked(release: Release) -> Release:
    """The lock's entry about the same kernel, if there is one: once it exists, it binds."""
    same = (one for one in lock.read() if one.kernel.identity == release.kernel.identity)
    return next(same, release)


def _names() -> list[str]:
    names = [row.name for row in catalogue()]
    names += [kernel.release for kernel in known()]
    return names


def obtain(kernel: Kernel) -> KernelFiles:
    """The kernel's files, fetched, verified and unpacked where need be.

    When a locked package has left its source, the newest release of the series is taken from the
    source's signed metadata; the `kernel` of the result is then that one, with `locked` False and
    `replaces` naming the one that left. Raises KernelUnavailable saying what was tried and what is
    cached, MissingTool, and LabError.
    """
    source = SOURCES.get(kernel.source)
    if source is None:
        raise LabError(f"the lock takes {kernel.release} from {kernel.source!r}, no source")
    release = next((r for r in lock.read() if r.kernel.identity == kernel.identity), None)
    try:
        if release is not None:
            try:
                return store.files_of(release, source, note=_log.info)
            except FileGone as error:
                return _successor(release, source, str(error))
        same = _RESOLVED.get(kernel.identity)
        if same is None:
            offers = source.matching(kernel.release)
            same = next((r for r in offers if r.kernel.identity == kernel.identity), None)
        if same is None:
            raise FileGone(f"{source.name} offers no {kernel.release} ({kernel.package}) any more")
        return store.files_of(same, source, note=_log.info)
    except SourceUnreachable as error:
        raise _unavailable(kernel.release, [str(error)]) from error


def _successor(gone: Release, source: Source, why: str) -> KernelFiles:
    kernel = gone.kernel
    offers = [
        one
        for one in source.matching(kernel.series, fresh=True)
        if one.kernel.flavour is kernel.flavour
    ]
    if not offers:
        raise FileGone(
            f"{why}; and {source.name} has no other {kernel.series}: `{COMMAND} kernels update` "
            "locks what there is"
        )
    found = newest_first(offers)[0]
    newest = replace(found, kernel=replace(found.kernel, replaces=kernel.release))
    _log.warning(
        "%s has left %s: taking %s, not the locked release; `%s kernels update %s` locks it",
        kernel.release,
        source.name,
        newest.kernel.release,
        COMMAND,
        kernel.series,
    )
    return store.files_of(newest, source, note=_log.info)


def _unavailable(name: str, tried: list[str]) -> KernelUnavailable:
    cached = list(dict.fromkeys(store.cached()))
    if len(cached) > _MOST_NAMES:
        series = sorted({".".join(one.split(".")[:2]) for one in cached}, key=version_key)
        cached = [f"{len(cached)} kernels of {', '.join(series)}"]
    return KernelUnavailable(
        f"kernel {name} is not obtainable from here: {'; then '.join(tried)};"
        f" in the cache: {', '.join(cached) or 'nothing'}",
        hint=f"the ways out: a mirror that answers in LAB_DEBIAN_MIRROR or {MIRROR}, a kernel of"
        f" your own with --kernel-file, or a directory of them in {VARIABLE}, or one that"
        f" `{COMMAND} kernels build` makes from sources",
    )


def locked_now(names: list[str]) -> tuple[Release, ...]:
    """The lock with the newest release of the named series (all that have one in it, if none is
    named) in the place of what it has of them; a release that is named by more than its series is
    added. Raises UsageError for an unknown name, KernelUnavailable when a source does not answer.
    """
    kept = list(lock.read())
    locked = {release.kernel.series for release in kept}
    for name in names or [row.name for row in catalogue() if row.name in locked]:
        row = series_called(name)
        if row is None:
            added = _RESOLVED.get(resolve(name).identity)
            if added is not None and added.kernel.source not in (Local.name, BUILT):
                kept.append(_complete(added))
            continue
        here = {r.kernel.flavour for r in kept if r.kernel.series == name}
        flavours: list[Flavour | None] = [*sorted(here)] or [None]
        for flavour in flavours:
            newest = _complete(_newest(row, flavour))
            ours = (name, newest.kernel.flavour)
            kept = [r for r in kept if (r.kernel.series, r.kernel.flavour) != ours]
            kept.append(newest)
    return newest_first(kept)


def _newest(row: Series, flavour: Flavour | None) -> Release:
    source = SOURCES[row.source]
    try:
        found = _best(source.matching(row.name, fresh=True), row.name, flavour)
    except SourceUnreachable as error:
        raise _unavailable(row.name, [str(error)]) from error
    if found is None:
        raise _unavailable(row.name, [f"{source.name} offers no {row.name}"])
    return found


def _complete(release: Release) -> Release:
    try:
        return store.completed(release, SOURCES[release.kernel.source], note=_log.info)
    except SourceUnreachable as error:
        raise _unavailable(release.kernel.release, [str(error)]) from error
