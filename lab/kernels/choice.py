# SPDX-License-Identifier: MIT
"""From a name a person types to a kernel's files."""

from __future__ import annotations

import logging

from lab.errors import KernelUnavailable, UsageError

from . import lock, store
from .catalogue import Series, catalogue
from .catalogue import series as series_called
from .debian import Debian
from .lock import newest_first
from .model import Kernel, KernelFiles, Release
from .source import FileGone, Source, SourceUnreachable

_log = logging.getLogger("lab.kernels")

SOURCES: dict[str, Source] = {"debian": Debian()}

NEWEST = "newest"


def known() -> tuple[Kernel, ...]:
    """Every locked kernel, newest first."""
    return tuple(release.kernel for release in lock.read())


def resolve(name: str) -> Kernel:
    """The kernel meant by `name`, the newest if several fit.

    `name` is "newest", a series ("6.12"), an upstream version ("6.12.107"), a package version or
    what `uname -r` says. Locked releases come first; a series of the catalogue that has none is
    looked up in its source's signed metadata. Raises UsageError listing the known ones, and
    KernelUnavailable when the source had to be asked and did not answer.
    """
    wanted = name.strip().removeprefix("v")
    for release in lock.read():  # newest first
        kernel = release.kernel
        if wanted in (NEWEST, kernel.series, kernel.upstream, kernel.package, kernel.release):
            return kernel
    row = series_called(wanted)
    if row is None:
        raise UsageError(
            f"unknown kernel {name!r}",
            hint=f"known are {', '.join(_names())}",
        )
    try:
        return _newest(row).kernel
    except SourceUnreachable as error:
        raise _unavailable(wanted, [str(error)]) from error


def _names() -> list[str]:
    names = [row.name for row in catalogue()]
    names += [kernel.release for kernel in known()]
    return names


def obtain(kernel: Kernel) -> KernelFiles:
    """The kernel's files, fetched, verified and unpacked where need be.

    When a locked package has left its source, the newest release of the series is taken from the
    source's signed metadata; the `kernel` of the result is then that one, with `locked` False.
    Raises KernelUnavailable saying what was tried and what is cached, MissingTool, and LabError.
    """
    source = SOURCES[kernel.source]
    tried: list[str] = []
    release = next((r for r in lock.read() if r.kernel == kernel), None)
    if release is not None:
        try:
            return store.files_of(release, source, note=_log.info)
        except FileGone as error:
            tried.append(str(error))
        except SourceUnreachable as error:
            raise _unavailable(kernel.release, [str(error)]) from error
    row = series_called(kernel.series)
    if row is None:
        raise _unavailable(kernel.release, [*tried, f"no series {kernel.series} in the catalogue"])
    try:
        newest = _newest(row)
        if release is not None:
            _log.warning(
                "%s has left %s: taking %s, not the locked release",
                kernel.release,
                source.name,
                newest.kernel.release,
            )
        return store.files_of(newest, source, note=_log.info)
    except SourceUnreachable as error:
        raise _unavailable(kernel.release, [*tried, str(error)]) from error


def _newest(row: Series) -> Release:
    offers = SOURCES[row.source].offers(row)
    if not offers:
        raise FileGone(f"{row.source} has no {row.name} in its suite {row.suite} any more")
    return offers[0]


def _unavailable(name: str, tried: list[str]) -> KernelUnavailable:
    cached = ", ".join(store.cached()) or "nothing"
    return KernelUnavailable(
        f"kernel {name} cannot be had: {'; then '.join(tried)}; in the cache: {cached}",
        hint="set LAB_DEBIAN_MIRROR to a Debian mirror that answers",
    )


def locked_now(names: list[str]) -> tuple[Release, ...]:
    """The lock with the newest release of the named series (all, if none is named) in it.

    Raises UsageError for an unknown series, KernelUnavailable when a source does not answer.
    """
    rows = [row for row in catalogue() if not names or row.name in names]
    if missing := set(names) - {row.name for row in rows}:
        raise UsageError(
            f"unknown series {', '.join(sorted(missing))}",
            hint=f"the catalogue has {', '.join(row.name for row in catalogue())}",
        )
    renewed = {row.name for row in rows}
    kept = [release for release in lock.read() if release.kernel.series not in renewed]
    for row in rows:
        try:
            kept.append(_newest(row))
        except SourceUnreachable as error:
            raise _unavailable(row.name, [str(error)]) from error
    return newest_first(kept)
