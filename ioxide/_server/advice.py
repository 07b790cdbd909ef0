# SPDX-License-Identifier: MIT
"""Warnings at the start, for configurations that are valid but hardly intended."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ioxide._common.config import ServerConfig

_GIB = 1 << 30


def processors() -> int:
    """Processors that the calling thread, and so the threads it starts, may run on (affinity)."""
    return len(os.sched_getaffinity(0))


def memory() -> int:
    """Bytes of memory that this machine has; a cgroup may allow less."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def advice(config: ServerConfig, *, processors: int, memory: int) -> Iterator[str]:
    """A sentence for each thing in `config` that this machine is too small for.

    Memory is used only by open connections.  So what full reactors would take is compared with half
    of the machine's memory: beyond that, clients can have the process killed.
    """
    if config.reactors > processors:
        yield (
            f"reactors={config.reactors}, but this process may run on {processors} of the "
            "processors only: the others take turns on them and serve nobody sooner. Take "
            f"reactors={processors}, or let the process run on more (taskset(1), cpuset(7))."
        )
    own = config.incremental
    if own is None:
        return
    each = own.recv_slots * own.recv_buffer_size
    whole = config.reactors * own.max_connections * each
    if whole > memory // 2:
        yield (
            f"incremental receive buffers may take {whole / _GIB:.1f} GiB (reactors="
            f"{config.reactors}, each with max_connections={own.max_connections} of recv_slots="
            f"{own.recv_slots} times recv_buffer_size={own.recv_buffer_size} bytes), and this "
            f"machine has {memory / _GIB:.1f} GiB: clients can have this process killed. Take "
            f"incremental.max_connections={max(memory // 2 // each // config.reactors, 1)}, or "
            "fewer or smaller buffers."
        )
