# SPDX-License-Identifier: MIT
"""What an experiment ends in, and what the experiments share."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ioxide._probe.rawring import WAIT_MS, Completion, RawRing, os_error


@dataclass(frozen=True, slots=True)
class Outcome:
    """An experiment's end; ``note`` is required unless ``observed``."""

    accepted: bool | None
    observed: bool | None
    evidence: dict[str, object]
    note: str = ""


def payload(length: int) -> bytes:
    """Bytes that are noticed when they are out of place; the same in every run."""
    return random.Random(length).randbytes(length)


def stream_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket, str]:
    """Two connected sockets: TCP as the reactor uses, or AF_UNIX where the loopback is down."""
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
            near = stack.enter_context(socket.create_connection(listener.getsockname(), 3.0))
            listener.settimeout(3.0)
            far = stack.enter_context(listener.accept()[0])
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = "tcp"
    except OSError:
        near, far = (stack.enter_context(s) for s in socket.socketpair())
        transport = "unix"
    near.settimeout(WAIT_MS / 1000)
    far.settimeout(WAIT_MS / 1000)
    return near, far, transport


def described(completions: Sequence[Completion]) -> list[str]:
    return [completion.describe() for completion in completions]


def received(completions: Sequence[Completion]) -> int:
    return sum(c.res for c in completions if c.res > 0)


def failed(completions: Sequence[Completion]) -> bool:
    return any(c.res < 0 for c in completions)


# A new flag on an old kernel is EINVAL; an unknown opcode too; EOPNOTSUPP is for what the file or
# socket does not do.  Anything else is no answer to the question, and is raised.
REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)


def open_ring(flags: int, **more: int) -> tuple[RawRing | None, int]:
    """A ring with set-up ``flags``, or None and the refusal."""
    try:
        return RawRing(flags=flags, **more), 0
    except OSError as error:
        if error.errno in REFUSALS:
            return None, -error.errno
        raise


def refused(result: int, what: str, /, **evidence: object) -> Outcome:
    """Not accepted, hence not observed; ``result`` is the kernel's negative errno."""
    name = errno.errorcode.get(-result, str(result))
    return Outcome(
        accepted=False,
        observed=False,
        evidence={**evidence, "result": result},
        note=f"the kernel refused {what} with {name}",
    )


def verdict(seen: bool, evidence: dict[str, object], note: str) -> Outcome:
    """Accepted, and observed or not."""
    return Outcome(accepted=True, observed=seen, evidence=evidence, note="" if seen else note)


def refusal_of(completions: Sequence[Completion], what: str) -> Outcome | None:
    """The outcome when the kernel refused the request, or did not answer it at all.

    :raises OSError: the first completion is an error that says nothing about the capability.
    """
    if not completions:
        return Outcome(
            accepted=None,
            observed=False,
            evidence={"completions": []},
            note=f"nothing came of {what} within {WAIT_MS} ms",
        )
    first = completions[0].res
    if -first in REFUSALS:
        return refused(first, what, completions=described(completions))
    if first < 0 and first != -errno.ETIME:  # ETIME is how a timeout fires
        raise os_error(first, what)
    return None
