# SPDX-License-Identifier: MIT
"""Whether the kernel has complained, as far as an ordinary user may see: dmesg is not for all."""

from __future__ import annotations

from pathlib import Path

FILE = Path("/proc/sys/kernel/tainted")
# It died, it warned, it saw a soft lockup (admin-guide/tainted-kernels.rst).
_COMPLAINTS = 1 << 7 | 1 << 9 | 1 << 14


def complaints() -> int:
    """The kinds of complaint since the machine was started, as bits; 0 where nobody may know.

    A kind that was there before is not seen again.
    """
    try:
        return int(FILE.read_text()) & _COMPLAINTS
    except (OSError, ValueError):
        return 0
