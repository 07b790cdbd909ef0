# SPDX-License-Identifier: MIT
"""What of this machine the lab may use: processors and memory, less what a control group denies.

A container sees all of the host's processors and memory in /proc; its limits are in its control
group and in those above it (cgroup v2: Documentation/admin-guide/cgroup-v2.rst; v1:
Documentation/scheduler/sched-bwc.rst, Documentation/admin-guide/cgroup-v1/memory.rst).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def processors() -> int:
    """How many processors may be kept busy at once, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    for group in _groups("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                allowed = min(allowed, _whole(int(quota) / int(period)))
        with suppress(OSError, ValueError):
            quota_us = int((group / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:  # -1: no limit
                period_us = int((group / "cpu.cfs_period_us").read_text())
                allowed = min(allowed, _whole(quota_us / period_us))
    return max(1, allowed)


def free_mib() -> int:
    """Memory that can be taken without somebody losing theirs, in MiB."""
    free = _available()
    for group in _groups("memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                most = int((group / limit).read_text())
                free = min(free, (most - int((group / used).read_text()) + _cache(group)) >> 20)
    return max(0, free)


def _available() -> int:
    for line in (_PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def _cache(group: Path) -> int:
    """Bytes counted as used that the kernel gives back when they are wanted: files read once."""
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _groups(controller: str) -> Iterator[Path]:
    """The control groups that this process is in, and those above them."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = _CGROUPS / controllers  # v2 names none
        place = top / path.lstrip("/")
        # In a container the path may be the host's, of which only the top is to be seen.
        while place != top and place.is_relative_to(top):
            yield place
            place = place.parent
        yield top


def _whole(share: float) -> int:
    return max(1, math.floor(share + 0.01))
