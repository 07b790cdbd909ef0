# SPDX-License-Identifier: MIT
"""What is asked of a build, whatever the sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import UsageError
from ..facts.kernel import DEBUG_SUFFIX, LOCAL_VERSION

DEFCONFIG, CLOUD = "defconfig", "cloud"
BASES = (DEFCONFIG, CLOUD)


@dataclass(frozen=True, slots=True)
class Order:
    """What a kernel is to be built like."""

    base: str = DEFCONFIG
    """`defconfig`, or `cloud` for Debian's configuration of the nearest series."""
    debug: bool = False
    """The flavour `debug`."""
    debug_info: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """Symbols of the configuration, with CONFIG_ in front, and their values."""
    jobs: int = 1
    """How many compilers run at once. No part of what the kernel is."""

    @property
    def local_version(self) -> str:
        """How `uname -r` goes on behind the version."""
        cloud = "-cloud" if self.base == CLOUD else ""
        return f"{LOCAL_VERSION}{cloud}{DEBUG_SUFFIX if self.debug else ''}"


def setting(text: str) -> tuple[str, str]:
    """A symbol and its value from SYMBOL=VALUE as a person types it. Raises UsageError."""
    match = re.fullmatch(
        r'(?:CONFIG_)?([A-Z0-9_]+)=(y|m|n|-?\d+|0x[0-9a-fA-F]+|"[^"\\\n]*")', text, re.ASCII
    )
    if match is None:
        raise UsageError(
            f"--set {text!r} is not SYMBOL=VALUE",
            hint="a value is y, m, n, a number or a text in quotes: --set KASAN=y --set NR_CPUS=8",
        )
    if match[1] in ("LOCALVERSION", "LOCALVERSION_AUTO"):
        raise UsageError(f"--set {text}: the lab names the kernels that it builds")
    return f"CONFIG_{match[1]}", match[2]
