# SPDX-License-Identifier: MIT
"""``python generations.py REACTORS LIVES``: servers one after the other in little locked memory.

A script and not a fixture, because giving up root and RLIMIT_MEMLOCK cannot be undone.  It measures
what one generation of REACTORS rings is charged, by the smallest limit that lets it start, allows
itself one and a half times that, and starts and stops LIVES servers.  The last line on standard
output is what it found, as JSON.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - asyncio imports it late, when it may not be readable any more
import errno
import json
import os
import resource
import socket
import sys
import threading

import ioxide
from tests.support import SMALL, TIMEOUT, echo, open_fds, read_exactly, until

_PR_SET_DUMPABLE = 4
_MEMLOCK = resource.RLIMIT_MEMLOCK
_MOST = 64 << 20
_NOBODY_ELSE = 100_000 + os.getpid()
"""A user of our own: locked memory is counted per user, over all of its processes."""


def allow(size: int) -> None:
    """Let this process lock so many bytes; never more than it may allow itself."""
    resource.setrlimit(_MEMLOCK, (size, resource.getrlimit(_MEMLOCK)[1]))


def starts(config: ioxide.ServerConfig) -> bool:
    """Whether one generation fits, and is gone again."""
    try:
        with ioxide.Server(echo, config):
            return True
    except ioxide.RingError as error:
        if error.errno != errno.ENOMEM:
            raise
        return False


def charge(config: ioxide.ServerConfig) -> int:
    """The smallest limit at which a generation starts, in bytes: what it is charged."""
    low, high = -1, _MOST // resource.getpagesize()  # in pages: does not start, starts
    hard = resource.getrlimit(_MEMLOCK)[1]
    if hard != resource.RLIM_INFINITY:
        high = min(high, hard // resource.getpagesize())
    while high - low > 1:
        middle = (low + high) // 2
        allow(middle * resource.getpagesize())
        if starts(config):
            high = middle
        else:
            low = middle
    return high * resource.getpagesize()


def become_ordinary() -> None:
    """Give up root, if that is what we are; only an ordinary user's locked memory is limited."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY_ELSE)
        os.setuid(_NOBODY_ELSE)
        # Or /proc/self would be root's: prctl(2).
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def served(server: ioxide.Server) -> int:
    """How many of as many requests as there are reactors were answered."""
    good = 0
    for _ in server.reactors:
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as client:
            client.sendall(b"x")
            good += b"x" == read_exactly(client, 1)
    return good


def main() -> int:
    reactors, lives = int(sys.argv[1]), int(sys.argv[2])
    config = SMALL.replace(reactors=reactors)
    become_ordinary()
    cost = charge(config)
    allow(cost + cost // 2)
    assert starts(config)  # and what is made once, and stays, is there from here on
    fds, threads = open_fds(), threading.active_count()
    beside = ""
    answered = 0
    for life in range(lives):
        with ioxide.Server(echo, config) as server:
            answered += served(server)
            if life == 0:
                # Where rings are charged the limit bites: no second generation beside the first.
                beside = "taken" if starts(config) else "refused"
    until(lambda: open_fds() <= fds, "descriptors back")
    until(lambda: threading.active_count() <= threads, "threads back")
    found = {
        "uid": os.geteuid(),
        "charged": cost,
        "beside": beside,
        "answered": answered,
        "fds": open_fds() - fds,
        "threads": threading.active_count() - threads,
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
