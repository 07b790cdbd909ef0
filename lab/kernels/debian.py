# SPDX-License-Identifier: MIT
"""Kernels from the Debian archive, cloud flavour."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import tools
from lab.errors import LabError

from . import apt
from .catalogue import Series
from .lock import newest_first
from .model import Kernel, Release, RemoteFile, series_of

_SPLIT = ("linux-base", "linux-binary", "linux-modules")


class Debian:
    """The Debian archive, by way of the mirror this machine's apt uses."""

    name = "debian"

    def offers(self, series: Series) -> tuple[Release, ...]:
        """Every release of the series in the suite's signed metadata, newest first."""
        with apt.private_root(series.suite) as root:
            root.update()
            packages = {fields["Package"]: fields for fields in root.packages("linux-")}
            keys = root.signed_by() or apt.keyring().name
        verified_by = f"Debian archive, signature on {series.suite}, keys {keys}"
        found = []
        for name, fields in packages.items():
            match = series.package.match(name)
            if match is None:
                continue
            release = match["release"]
            files = _files(packages, fields, release)
            upstream = _upstream(fields["Version"])
            if files and series_of(upstream) == series.name:
                kernel = Kernel(
                    series=series.name,
                    upstream=upstream,
                    package=fields["Version"],
                    release=release,
                    source=self.name,
                    locked=False,
                    verified_by=verified_by,
                )
                found.append(Release(kernel=kernel, suite=series.suite, files=files))
        return newest_first(found)

    def download(self, file: RemoteFile, into: Path) -> None:
        """Fetch one file of the pool; apt's own transport, so proxies and credentials apply."""
        with apt.private_root("stable") as root:  # no metadata is read, so no suite matters
            fetched = root.directory / "file"
            root.download(file.path, fetched, file.sha256)
            fetched.rename(into)

    def unpack(self, packages: Sequence[Path], release: str, tree: Path) -> None:
        """Bring both layouts of Debian's kernel packages into the lab's one."""
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
    split = [packages.get(f"{part}-{release}") for part in _SPLIT]
    chosen = [fields for fields in split if fields is not None]
    # linux-base and linux-modules of one release exist only in the new layout, all together.
    if len(chosen) != len(_SPLIT):
        chosen = [image]
    return tuple(
        RemoteFile(path=f["Filename"], size=int(f["Size"]), sha256=f["SHA256"]) for f in chosen
    )


def _upstream(version: str) -> str:
    """ "6.12.107-1~bpo12+1" -> "6.12.107"."""
    return version.rsplit("-", 1)[0].split("~", 1)[0]


def _first(candidates: Sequence[Path], release: str, what: str) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise LabError(f"the packages of {release} hold no {what}: looked for it at {candidates[0]}")
