# SPDX-License-Identifier: MIT
"""A distribution's source package as the sources: `linux-source-6.12` of the Debian archive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .. import cache, tools
from ..errors import KernelUnavailable, LabError, UsageError
from ..facts.kernel import version_key
from ..kernels import apt, catalogue
from ..kernels.listing import kept_text
from ..kernels.source import SourceUnreachable
from . import sources

PREFIX = "linux-source-"
_AT_ONCE = 4
_LONG_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    version: str
    suite: str
    path: str
    sha256: str


class DebianSource:
    """The sources in a package `linux-source-VERSION`; the archive's signature vouches for it."""

    def __init__(self, named: str) -> None:
        """`named` is a package, or PACKAGE=VERSION. Raises UsageError."""
        self._name, _, self._version = named.partition("=")
        if not self._name.startswith(PREFIX) or (not self._version and "=" in named):
            raise UsageError(
                f"--debian {named!r} is no source package of a kernel",
                hint=f"{PREFIX}6.12, or {PREFIX}6.12=VERSION",
            )
        self._package: _Package | None = None

    @property
    def place(self) -> str:
        """See `Sources`."""
        return f"debian {self._name}"

    @property
    def origin(self) -> str:
        """See `Sources`."""
        version = self._package.version if self._package else self._version
        return f"Debian's {self._name} {version}".rstrip()

    def pin(self, workshop: Path) -> str:
        """See `Sources`."""
        del workshop
        offers = _offered()
        some = [one for one in offers if one.name == self._name]
        fit = [one for one in some if self._version in ("", one.version)]
        if not fit:
            what = f"version {self._version} of {self._name}" if some else f"package {self._name}"
            names = (one.version for one in some) if some else (one.name for one in offers)
            known = sorted(set(names), key=version_key)
            raise UsageError(
                f"the Debian archive has no {what}", hint=f"it has {', '.join(known) or 'none'}"
            )
        self._package = max(fit, key=lambda one: version_key(one.version))
        return f"debian {self._package.sha256}"

    def lay(self, workshop: Path) -> Path:
        """See `Sources`."""
        package = self._package
        assert package is not None
        tree, of = workshop / "tree", workshop / "tree.sha256"
        if of.exists() and of.read_text() == package.sha256 and tree.is_dir():
            return tree
        of.unlink(missing_ok=True)
        cache.remove(tree)
        with cache.locked(cache.package_lock(package.sha256)), cache.scratch() as directory:
            deb = _fetched(package, directory)
            raw, made = directory / "raw", directory / "tree"
            tools.run(["dpkg-deb", "-x", deb, raw], what=f"unpacking {deb.name}", timeout_s=_LONG_S)
            found = sorted(raw.glob(f"usr/src/{self._name}.tar*"))
            if not found:
                raise LabError(f"{deb.name} holds no usr/src/{self._name}.tar")
            tools.find("xz")  # which tar would start
            made.mkdir()
            tools.run(
                ["tar", "-xf", found[0], "-C", made, "--strip-components=1"],
                what=f"unpacking {found[0].name}",
                timeout_s=_LONG_S,
            )
            made.rename(tree)
        sources.check(tree, self.origin)
        of.write_text(package.sha256)
        return tree

    def remember(self, place: Path) -> None:
        """See `Sources`."""

    def stale(self, place: Path, since_ns: int) -> bool:
        """See `Sources`; the files of a package have old times."""
        del place, since_ns
        return True

    def changed(self) -> str:
        """See `Sources`; nobody but the holder of the lock writes there."""
        return ""


def _fetched(package: _Package, directory: Path) -> Path:
    """The package from the cache or the archive, compared with the hash in signed metadata."""
    place = cache.root() / "packages" / package.sha256 / package.path.rsplit("/", 1)[-1]
    if place.exists() and cache.digest(place) == package.sha256:
        return place
    fetched = directory / place.name
    try:
        with apt.private_root(package.suite) as root:
            file = root.directory / "file"
            root.download(package.path, file, package.sha256)
            file.rename(fetched)
    except SourceUnreachable as error:
        raise KernelUnavailable(f"{package.name} cannot be had: {error}") from error
    cache.publish(fetched, place)
    return place


def _offered() -> Sequence[_Package]:
    """Every source package of a kernel that the archive's suites have. Raises KernelUnavailable."""
    suites = catalogue.read().debian.suites
    facts = [apt.mirror("debian"), list(suites)]
    text = kept_text("debian-sources", facts, lambda: json.dumps(_ask(suites)))
    return [_Package(*row) for row in json.loads(text)]


def _ask(suites: Sequence[str]) -> list[list[str]]:
    def ask_one(suite: str) -> list[list[str]] | str:
        try:
            with apt.private_root(suite) as root:
                root.update()
                packages: Sequence[Mapping[str, str]] = root.packages(PREFIX)
        except (SourceUnreachable, KernelUnavailable) as error:
            return str(error)
        return [
            [p["Package"], p["Version"], suite, p["Filename"], p["SHA256"]]
            for p in packages
            if "SHA256" in p and "Filename" in p
        ]

    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="apt") as pool:
        answers = list(pool.map(ask_one, suites))
    found = [row for answer in answers if not isinstance(answer, str) for row in answer]
    if not found:
        whys = dict.fromkeys(answer for answer in answers if isinstance(answer, str))
        raise KernelUnavailable(
            f"no suite of the Debian archive names the sources of a kernel: {'; '.join(whys)}",
            hint="LAB_DEBIAN_MIRROR names a mirror",
        )
    return found
