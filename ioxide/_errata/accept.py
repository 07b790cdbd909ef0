# SPDX-License-Identifier: MIT
"""A multishot accept (5.19) and a completion queue that is full."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from ioxide._errata.connections import REACTOR_FLAGS
from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.waiting import described
from ioxide._probe.rawring import WAIT_MS, Completion, RawRing
from ioxide._ring import lib

ENTRIES = 4
ACCEPT = 7


def _sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the directory's own descriptor is closed by now
            if str(path.readlink()).startswith("socket:"):
                found.add(int(path.name))
    return found


def _accepted(waiting: int, ioprio: int) -> tuple[list[Completion], set[str]]:
    """What a multishot accept says that is submitted to a full queue while `waiting` clients wait
    in the backlog, and the names of the clients whose connections this process then holds."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ring = stack.enter_context(
            RawRing(entries=ENTRIES, cq_entries=ENTRIES, flags=REACTOR_FLAGS)
        )
        clients = [
            stack.enter_context(socket.create_connection(listener.getsockname(), WAIT_MS / 1000))
            for _ in range(waiting)
        ]
        for _ in range(ENTRIES):
            ring.push(lib.IOX_PROBE_OP_NOP)
        ring.enter()
        assert ring.ready == ENTRIES, f"{ring.ready} completions do not fill the queue"
        before = _sockets()
        ring.push(
            lib.IOX_PROBE_OP_ACCEPT,
            fd=listener.fileno(),
            ioprio=lib.IOX_ACCEPT_MULTISHOT | ioprio,
            op_flags=socket.SOCK_CLOEXEC,
            user_data=ACCEPT,
        )
        ring.enter()
        ring.reap()
        found = [c for c in ring.collect(1) if c.user_data == ACCEPT]
        names = {str(client.getsockname()) for client in clients}
        held = set()
        for descriptor in _sockets() - before:
            with socket.socket(fileno=descriptor) as taken:
                held.add(str(taken.getpeername()))
        assert held <= names, f"{held} are not those of {names}"
        return found, held


@reproducer("IOX-ERR-014", needs=("MULTISHOT_ACCEPT",))
def accept_submitted_to_a_full_queue() -> None:
    """IOX-ERR-014: an accept that takes a connection says which descriptor it has.

    io_accept() hands out IOU_STOP_MULTISHOT, which is ECANCELED, also while it is being submitted,
    where that becomes the request's result; IOX_ACCEPT_POLL_FIRST (6.10) keeps it from there.
    """
    found, held = _accepted(1, 0)
    assert len(found) == 1, described(found)
    if found[0].res == -errno.ECANCELED and held:
        raise ErratumPresent(
            "IOX-ERR-014", f"{described(found)}, and the process holds a connection it accepted"
        )
    # The control: the completion tells of the connection. Whether it is the multishot's last is the
    # kernel's choice: 6.6 keeps such completions until there is room, and goes on (MORE).
    assert found[0].res >= 0, described(found)
    assert len(held) == 1


@control(needs=("MULTISHOT_ACCEPT",))
def accept_that_polls_first() -> None:
    """The control of IOX-ERR-014, and the way out: run from its poll an accept loses nothing."""
    found, held = _accepted(1, lib.IOX_ACCEPT_POLL_FIRST)
    assert len(found) == 1, described(found)
    if found[0].res == -errno.EINVAL:  # 6.9 and older do not know the flag
        assert not held
        return
    assert (True, False) == (found[0].res >= 0, found[0].more), described(found)
    assert len(held) == 1
