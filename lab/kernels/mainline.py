# SPDX-License-Identifier: MIT
"""Kernels from the Ubuntu mainline archive: any release, in Ubuntu's generic configuration.

`vX.Y.Z/ARCH/` (without the last level in old versions) holds packages and CHECKSUMS with a
detached signature, CHECKSUMS.gpg. The signature has to be by the one key whose whole fingerprint
the catalogue names; where the key itself was fetched from does not matter then.
"""

from __future__ import annotations

import base64
import itertools
import logging
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import arch, cache, tools
from ..errors import LabError, MissingTool
from ..facts.kernel import Kernel, series_of, version_key
from . import catalogue, http
from .debian import unpack_packages
from .listing import kept
from .model import Release, RemoteFile, newest_first
from .source import FileGone, SourceUnreachable

_log = logging.getLogger("lab.kernels")

MIRROR = "LAB_MAINLINE_MIRROR"
KEY = "LAB_MAINLINE_KEY"
FINGERPRINT = "LAB_MAINLINE_FINGERPRINT"
_TRIES = 5
"""Builds that failed leave a version without packages; the one before it is the newest then."""
_DOWN_S = 300.0
_IMAGE = r"linux-image(-unsigned)?-(?P<release>\d[^_]*)_(?P<package>[^_]+)_{arch}\.deb"


class Mainline:
    """The archive named in the catalogue, or in `$LAB_MAINLINE_MIRROR`."""

    name = "mainline"

    def __init__(self) -> None:
        self._down: tuple[str, float, str] | None = None

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`; the newest release of each series the catalogue takes from here. There are
        hundreds of others, and each takes a request to tell what it is; `matching` finds them."""
        rows = [row.name for row in catalogue.catalogue() if row.source == self.name]
        return newest_first(one for row in rows for one in self.matching(row, fresh=fresh))

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`. "6.6" is the newest 6.6.x, anything longer one release."""
        match = re.match(r"(\d+\.\d+)(\.\d+)?(-rc\d+)?(?=-|$)", wanted)
        if match is None:
            return ()

        def ask() -> tuple[Sequence[Release], Sequence[str]]:
            if wanted == match[1]:
                return [self._newest(wanted)], ()
            try:
                return [self._release(match[0])], ()
            except FileGone:
                return [], ()

        name = f"mainline-{re.sub(r'[^0-9A-Za-z.]', '_', _mirror())}-{match[0]}"
        found = kept(name, lambda: self._unless_down(ask), fresh=fresh, note=_log.warning)
        whole = wanted in (match[0], match[1])
        return tuple(
            one
            for one in found.releases
            if whole or wanted in (one.kernel.release, one.kernel.package)
        )

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """Fetch one package."""
        del suite
        http.download(f"{_mirror()}/{file.path}", into, file.size)

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Lay the packages out as the store wants them."""
        unpack_packages(packages, release.kernel.release, tree)

    def _unless_down(self, ask: object) -> tuple[Sequence[Release], Sequence[str]]:
        """Ask, unless this very mirror has just not answered: one wait is enough for a run."""
        assert callable(ask)
        if self._down is not None:
            mirror, until, why = self._down
            if mirror == _mirror() and time.monotonic() < until:
                raise SourceUnreachable(why)
        try:
            answer: tuple[Sequence[Release], Sequence[str]] = ask()
        except FileGone:
            raise
        except SourceUnreachable as error:
            self._down = _mirror(), time.monotonic() + _DOWN_S, str(error)
            raise
        return answer

    def _newest(self, series: str) -> Release:
        index = http.text(f"{_mirror()}/").decode(errors="replace")
        versions = set(re.findall(rf'href="(?:\./)?v({re.escape(series)}(?:\.\d+)?)/"', index))
        ordered = sorted(versions, key=version_key, reverse=True)
        complaints = []
        for version in ordered[:_TRIES]:
            try:
                return self._release(version)
            except FileGone as error:
                complaints.append(str(error))
        raise FileGone("; ".join(complaints) or f"{_mirror()} has no version {series}")

    def _release(self, version: str) -> Release:
        """One version, from its signed list. Raises FileGone, SourceUnreachable."""
        its = arch.here().debian
        image_name = re.compile(_IMAGE.replace("{arch}", re.escape(its)))
        directory = f"v{version}/{its}"
        try:
            listed = http.text(f"{_mirror()}/{directory}/CHECKSUMS")
        except FileGone:
            directory = f"v{version}"
            listed = http.text(f"{_mirror()}/{directory}/CHECKSUMS")
        try:
            signature = http.text(f"{_mirror()}/{directory}/CHECKSUMS.gpg")
        except FileGone as error:  # a list nobody signed is no release that is merely missing
            raise SourceUnreachable(str(error)) from error
        fingerprint = _check(listed, signature, f"{_mirror()}/{directory}/CHECKSUMS")
        hashes = _hashes(listed.decode(errors="replace"))
        images = [match for name in hashes if (match := image_name.fullmatch(name))]
        # Beside generic there is lowlatency, in some old versions.
        images.sort(key=lambda match: not match["release"].endswith("-generic"))
        image = images[0] if images else None
        if image is None:
            raise FileGone(f"{_mirror()}/{directory} has no kernel for {its}")
        modules = f"linux-modules-{image['release']}_{image['package']}_{its}.deb"
        if modules not in hashes:
            raise SourceUnreachable(f"{_mirror()}/{directory} lacks the package {modules}")
        upstream = version if version.count(".") > 1 else f"{version}.0"
        files = tuple(
            RemoteFile(
                path=f"{directory}/{name}",
                size=http.size(f"{_mirror()}/{directory}/{name}"),
                sha256=hashes[name],
            )
            for name in (image[0], modules)
        )
        kernel = Kernel(
            series=series_of(upstream),
            upstream=upstream,
            package=image["package"],
            release=image["release"],
            source=self.name,
            locked=False,
            verified_by=f"mainline archive, CHECKSUMS of v{version} signed by {fingerprint}",
        )
        return Release(kernel=kernel, suite=f"v{version}", files=files)


def _mirror() -> str:
    return (os.environ.get(MIRROR) or catalogue.read().mainline.mirror).rstrip("/")


def _hashes(listed: str) -> Mapping[str, str]:
    """Name -> sha256. A list has a part for each kind of hash; the length tells them apart."""
    rows = (line.split() for line in listed.splitlines() if not line.startswith("#"))
    below = f"{arch.here().debian}/"
    return {
        row[1].lstrip("*").removeprefix("./").removeprefix(below): row[0].lower()
        for row in rows
        if len(row) == 2 and re.fullmatch(r"[0-9a-fA-F]{64}", row[0])
    }


def _check(listed: bytes, signature: bytes, where: str) -> str:
    """The fingerprint of the key that signed. Raises SourceUnreachable when it is not ours."""
    expected = os.environ.get(FINGERPRINT) or catalogue.read().mainline.fingerprint
    expected = expected.replace(" ", "").upper()
    if not re.fullmatch(r"[0-9A-F]{40}", expected):
        raise LabError(f"{FINGERPRINT} is {expected!r}, expected all 40 hexadecimal digits")
    with cache.scratch() as directory:
        for name, data in (
            ("CHECKSUMS", listed),
            ("CHECKSUMS.gpg", _binary(signature)),
            ("key.gpg", _binary(_key(expected))),
        ):
            (directory / name).write_bytes(data)
        done = subprocess.run(
            [
                *(str(tools.find("gpgv")), "--status-fd", "1", "--keyring", directory / "key.gpg"),
                *(directory / "CHECKSUMS.gpg", directory / "CHECKSUMS"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    words = [line.split() for line in done.stdout.splitlines() if " VALIDSIG " in line]
    # The last word is the primary key's fingerprint, the third that of the subkey that signed.
    if done.returncode == 0 and any(row[-1] == expected for row in words):
        return expected
    said = (done.stderr.strip().splitlines() or ["gpgv found no signature"])[-1]
    raise SourceUnreachable(
        f"{where} is not signed by {expected}: {said.removeprefix('gpgv: ')}; nothing of it is used"
    )


def _key(fingerprint: str) -> bytes:
    """The key, from `$LAB_MAINLINE_KEY`, the cache or a key server; its fingerprint is what counts,
    and gpgv compares. What else a key server says, in whatever page, is not kept."""
    if named := os.environ.get(KEY):
        try:
            return Path(named).read_bytes()
        except OSError as error:
            raise LabError(f"{KEY} is {named}: {error.strerror}") from error
    place = cache.root() / "keys" / f"{fingerprint}.asc"
    if place.exists() and _is_key(place, fingerprint):
        return place.read_bytes()
    url = catalogue.read().mainline.key_url.format(fingerprint=fingerprint)
    with cache.locked("keys"), cache.scratch() as directory:
        made = directory / place.name
        made.write_bytes(http.text(url))
        if not _is_key(made, fingerprint):
            raise SourceUnreachable(f"{url} is not the key {fingerprint}")
        cache.publish(made, place)
    return place.read_bytes()


def _is_key(path: Path, fingerprint: str) -> bool:
    """Whether the file holds the key with this fingerprint, and no other."""
    with cache.scratch() as home:
        try:
            shown = tools.run(
                ["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", path],
                what="reading a key",
            )
        except MissingTool:
            raise
        except LabError:
            return False
    rows = [line.split(":") for line in shown.splitlines()]
    primary = [row[9] for before, row in itertools.pairwise(rows) if before[0] == "pub"]
    return primary == [fingerprint]


def _binary(data: bytes) -> bytes:
    """OpenPGP data without its armour, which gpgv's keyrings must not have (RFC 4880, 6.2)."""
    if not data.lstrip().startswith(b"-----BEGIN PGP"):
        return data
    lines = [line.strip() for line in data.strip().splitlines()]
    start = lines.index(b"") + 1 if b"" in lines else 1
    body = [line for line in lines[start:] if line and not line.startswith((b"-----", b"="))]
    try:
        return base64.b64decode(b"".join(body), validate=True)
    except ValueError:
        return b""
