# SPDX-License-Identifier: MIT
"""What a kernel's release, as uname -r prints it, says of which kernel it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, ...]

_SHAPE = re.compile(
    r"(\d{1,3})\.(\d{1,4})(?:\.(\d{1,5}))?(-rc\d+)?((?:\.\d+)?(?:[-+_~][A-Za-z0-9._+~-]*)?)",
    re.ASCII,
)
# By what the rest of a release says: whose kernel it is, and what its number is worth.
_TAKEN = "it takes io_uring of newer kernels while its number stays, so its number says nothing"
_PATCHED = "it is the numbered release with patches of its maker"
_OWN_NUMBER = "its last number counts the maker's builds, and not the upstream release"
_MAKERS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\.el\d"), "Red Hat Enterprise Linux or a rebuild of it", _TAKEN),
    (re.compile(r"\.amzn"), "Amazon Linux", _PATCHED),
    (re.compile(r"microsoft", re.I), "Microsoft's for WSL", _PATCHED),
    (re.compile(r"-azure|-aws|-gcp|-gke|-oracle|-generic|-lowlatency"), "Ubuntu", _OWN_NUMBER),
    (re.compile(r"\.el\d*uek|uek"), "Oracle's Unbreakable Enterprise Kernel", _TAKEN),
    (re.compile(r"\.fc\d"), "Fedora", _PATCHED),
    (re.compile(r"-android\d"), "Android", _PATCHED),
    (re.compile(r"-arch\d|-zen|-cachyos", re.I), "Arch Linux or a relative of it", _PATCHED),
    (re.compile(r"-(default|lp\d+|sle)"), "SUSE", _PATCHED),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A release that has the shape of a kernel's."""

    text: str
    version: Version
    """Two numbers or three."""
    rest: str
    """What is behind the numbers."""
    maker: str
    """Whose kernel it is; empty for an upstream release or an unknown maker."""
    worth: str
    """What its number is worth where that is less than it seems; empty otherwise."""

    @property
    def series(self) -> Version:
        """The first two numbers."""
        return self.version[:2]

    @property
    def number(self) -> str:
        """The numbers as text, "6.12.43"."""
        return ".".join(map(str, self.version))

    @property
    def says_nothing(self) -> bool:
        """The number does not tell what io_uring of this kernel is like."""
        return self.worth == _TAKEN

    @property
    def counts_builds(self) -> bool:
        """The last number is not that of an upstream release."""
        return self.worth == _OWN_NUMBER


def parsed(text: str) -> Release:
    """The release; raises ValueError, with a sentence, for what is none."""
    match = _SHAPE.fullmatch(text.strip())
    # A fourth number has a third before it.
    if match is None or (match[3] is match[4] is None and match[5].startswith(".")):
        raise ValueError(
            f"{text!r} is no release of a kernel: name what `uname -r` prints, such as 6.12.43 or "
            "6.18.15+deb13-cloud-amd64"
        )
    numbers = tuple(int(one) for one in match.group(1, 2, 3) if one is not None)
    rest = (match[4] or "") + match[5]
    # Red Hat's own pattern is in that of Oracle's, which is more to the point.
    makers = sorted(_MAKERS, key=lambda one: "uek" not in one[0].pattern)
    for pattern, maker, worth in makers:
        if pattern.search(rest):
            return Release(text.strip(), numbers, rest, maker, worth)
    if numbers[2:] == (0,) and re.match(r"-\d", rest):
        # Debian until 6.1, and others: 6.1.0-56-amd64 is some 6.1.y.
        return Release(text.strip(), numbers, rest, "a distribution", _OWN_NUMBER)
    return Release(text.strip(), numbers, rest, "", _PATCHED if rest else "")


def version_of(upstream: str) -> Version:
    """The numbers of an upstream version."""
    return tuple(int(one) for one in upstream.split("."))
