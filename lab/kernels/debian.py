# SPDX-License-Identifier: MIT
"""Kernels from the Debian archive: every release that the signed metadata of its suites names."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import arch, tools
from ..errors import KernelUnavailable, LabError
from ..facts.kernel import Kernel, series_of
from . import apt, catalogue
from .listing import kept
from .model import Release, RemoteFile, newest_first
from .source import SourceUnreachable, named

_log = logging.getLogger("lab.kernels")

_SPLIT = ("linux-base", "linux-binary", "linux-modules")
_MODULES_VOUCHED = "; modules, no longer in the index, by the key inside that kernel"
"""Such a guest is started with module.sig_enforce=1 like every Debian one: the kernel is what the
signed metadata says, and it loads nothing that its own build did not sign."""
_AT_ONCE = 4
"""Suites asked side by side: most of the time goes into waiting for the mirror."""


class Debian:
    """The Debian archive, by way of the mirror this machine's apt uses."""

    name = "debian"

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`."""
        settings = catalogue.read().debian
        address = apt.mirror("debian")
        identity = [address, settings.suites, [one.pattern for one in settings.packages]]
        key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        return kept(f"debian-{key}", _ask, fresh=fresh, note=_log.warning).releases

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`."""
        return tuple(one for one in self.listing(fresh=fresh) if named(one.kernel, wanted))

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """Fetch one file of the pool; apt's own transport, so proxies and credentials apply."""
        with apt.private_root(suite) as root:  # its metadata is not read, only its address is used
            fetched = root.directory / "file"
            root.download(file.path, fetched, file.sha256)
            fetched.rename(into)

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Bring both layouts of Debian's kernel packages into the lab's one."""
        unpack_packages(packages, release.kernel.release, tree)


def _ask() -> tuple[Sequence[Release], Sequence[str]]:
    """What all suites offer, and a sentence for each that did not answer."""
    suites = catalogue.read().debian.suites

    def ask_one(suite: str) -> Sequence[Release] | str:
        try:
            return releases_of(suite)
        except (SourceUnreachable, KernelUnavailable) as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="apt") as pool:
        answers = list(pool.map(ask_one, suites))
    complaints = list(dict.fromkeys(answer for answer in answers if isinstance(answer, str)))
    found: dict[tuple[str, str], Release] = {}
    for answer in answers:
        for release in () if isinstance(answer, str) else answer:
            found.setdefault((release.kernel.release, release.kernel.package), release)
    if not found:
        raise SourceUnreachable("; ".join(complaints) or "the mirror offers no kernel at all")
    return newest_first(found.values()), complaints


def releases_of(suite: str) -> tuple[Release, ...]:
    """Every kernel in one suite's signed metadata, newest first. Raises SourceUnreachable."""
    with apt.private_root(suite) as root:
        reservation = root.update()
        packages = {fields["Package"]: fields for fields in root.packages("linux-")}
        keys = root.signed_by() or apt.keyring().name
    verified_by = f"Debian archive, signature on {suite}, keys {keys}{reservation}"
    patterns = catalogue.read().debian.packages
    found = []
    for name, fields in packages.items():
        match = next(filter(None, (pattern.match(name) for pattern in patterns)), None)
        if match is None:
            continue
        release = match["release"]
        upstream = _upstream(fields["Version"])
        files = _files(packages, fields, release)
        told = all(file.sha256 for file in files)
        kernel = Kernel(
            series=series_of(upstream),
            upstream=upstream,
            package=fields["Version"],
            release=release,
            source=Debian.name,
            locked=False,
            verified_by=verified_by if told else verified_by + _MODULES_VOUCHED,
        )
        found.append(Release(kernel=kernel, suite=suite, files=files))
    return newest_first(found)


def unpack_packages(packages: Sequence[Path], release: str, tree: Path) -> None:
    """Unpack kernel packages into `tree` as `vmlinuz`, `config` and `lib/modules/RELEASE`,
    wherever they have them. Raises LabError when they do not hold these."""
    raw = tree / "raw"
    for package in packages:
        tools.run(["dpkg-deb", "-x", package, raw], what=f"unpacking {package.name}")
    # Up to 6.18 /boot holds the image; from 6.19 on everything is below usr/lib/modules.
    modules = _first(
        (raw / "usr/lib/modules" / release, raw / "lib/modules" / release), release, "modules"
    )
    image = _first((raw / "boot" / f"vmlinuz-{release}", modules / "vmlinuz"), release, "image")
    config = _first((raw / "boot" / f"config-{release}", modules / "config"), release, "config")
    (tree / "lib/modules").mkdir(parents=True)
    shutil.move(image, tree / "vmlinuz")
    shutil.move(config, tree / "config")
    shutil.move(modules, tree / "lib/modules" / release)
    shutil.rmtree(raw)


def _files(
    packages: Mapping[str, Mapping[str, str]], image: Mapping[str, str], release: str
) -> tuple[RemoteFile, ...]:
    binary = packages.get(f"linux-binary-{release}")
    if binary is None:
        return (_told(image),)
    files = []
    for part in _SPLIT:
        fields = packages.get(f"{part}-{release}")
        if fields is not None:
            files.append(_told(fields))
            continue
        # Of releases that are not a suite's newest the archive keeps what the source package
        # linux-signed-ARCH built, the kernel among it, and drops from the index what `linux`
        # built. Those files stay in the pool for long; see `_MODULES_VOUCHED`.
        name = f"{part}-{release}_{image['Version']}_{arch.here().debian}.deb"
        files.append(RemoteFile(path=f"pool/main/l/linux/{name}", size=0, sha256=""))
    return tuple(files)


def _told(fields: Mapping[str, str]) -> RemoteFile:
    return RemoteFile(fields["Filename"], size=int(fields["Size"]), sha256=fields["SHA256"])


def _upstream(version: str) -> str:
    """ "6.12.107-1~bpo12+1" -> "6.12.107"."""
    return version.rsplit("-", 1)[0].split("~", 1)[0]


def _first(candidates: Sequence[Path], release: str, what: str) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise LabError(f"the packages of {release} hold no {what}: looked for it at {candidates[0]}")
