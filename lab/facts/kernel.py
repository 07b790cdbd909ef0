# SPDX-License-Identifier: MIT
"""What a kernel is to the lab."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

BUILT = "built"
"""The source of kernels that were built here."""
LOCAL_VERSION, DEBUG_SUFFIX = "-lab", "-debug"
"""How the `uname -r` of such a kernel goes on behind its version, and ends if it is of the flavour
`debug`."""


def is_debug(release: str) -> bool:
    """Whether the kernel that calls itself so was built here with the flavour `debug`."""
    return LOCAL_VERSION in release and release.endswith(DEBUG_SUFFIX)


class Flavour(StrEnum):
    """Which of a distribution's configurations a kernel was built with."""

    CLOUD = "cloud"
    """Debian's for virtual machines: a third of the size, everything the lab itself needs."""
    FULL = "full"
    """Debian's for any machine; it alone has 9p, which virtme-ng needs."""
    DEBUG = "debug"
    """Built here to look for bugs in itself: many times slower."""
    OTHER = "other"
    """Somebody else's: mainline's generic configuration, a developer's own."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One released kernel. Identity is (upstream, package, release): Debian's 6.1 calls itself
    `6.1.0-50-cloud-amd64` and is 6.1.176, and one upstream version exists in several packagings.
    """

    series: str
    """First two numbers of the upstream version: "6.12"."""
    upstream: str
    """Upstream version: "6.12.107"."""
    package: str
    """The distribution's package version: "6.12.107-1"."""
    release: str
    """What `uname -r` says in it: "6.12.107+deb13-cloud-amd64"."""
    source: str
    """Name of the source module that delivers it: "debian"."""
    locked: bool
    """True when kernels.lock names this very package."""
    verified_by: str
    """Which key or hash vouches for its files, in words."""

    replaces: str = ""
    """`uname -r` of the locked release that has left its source, whose place this one takes."""

    @property
    def flavour(self) -> Flavour:
        """Which configuration it was built with, as its name tells."""
        if self.source == BUILT and self.release.endswith(DEBUG_SUFFIX):
            return Flavour.DEBUG
        if self.source != "debian":
            return Flavour.OTHER
        return Flavour.CLOUD if "-cloud-" in self.release else Flavour.FULL

    @property
    def title(self) -> str:
        """Its name in a report: "6.12.107"; of one that was built here it says so."""
        debug = "+debug" if self.flavour is Flavour.DEBUG else ""
        return self.upstream + debug + (f" {BUILT}" if self.source == BUILT else "")

    @property
    def identity(self) -> tuple[str, str, str]:
        """(upstream, package, release): what one kernel is told from another by."""
        return self.upstream, self.package, self.release

    def __str__(self) -> str:
        lock = "" if self.locked else ", unlocked"
        if self.replaces:
            lock = f", not the locked release, which was {self.replaces}"
        return f"{self.release} (upstream {self.upstream}, package {self.package}{lock})"


def version_key(version: str) -> tuple[int, ...]:
    """Sort key for versions: 6.12.9 comes before 6.12.107, and 6.12.94-1~bpo12+1 before 6.12.94-1
    (a tilde sorts before the end, deb-version(7))."""
    tokens = re.findall(r"~|\d+", version)
    return (*(-2 if token == "~" else int(token) for token in tokens), -1)


def series_of(upstream: str) -> str:
    """The series an upstream version belongs to: "6.12.107" -> "6.12"."""
    return ".".join(upstream.split(".")[:2])


def age_key(kernel: Kernel) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Sort key by which the newest kernel comes last."""
    return version_key(kernel.upstream), version_key(kernel.package), kernel.release
