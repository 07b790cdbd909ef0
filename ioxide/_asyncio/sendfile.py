# SPDX-License-Identifier: MIT
"""Who may write while ``loop.sendfile()`` copies a file into a transport of the ring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def sole_writer(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> Iterator[None]:
    """Within the block only the current task may write to the transport.

    ``write()`` and ``writelines()`` of others raise `RuntimeError`, as asyncio's do while
    sendfile(2) runs.  They are attributes of the instance then, so that no other ``write()`` pays
    for the check.  A second block at the same time raises `RuntimeError`.
    """
    if "writelines" in transport.__dict__:  # which is there for the length of such a block alone
        raise RuntimeError("unable to send a file; sendfile is in progress")
    task = asyncio.current_task(loop)

    def only(name: str) -> Callable[[Any], None]:
        method = getattr(transport, name)

        def call(data: Any) -> None:
            if asyncio.current_task(loop) is not task:
                raise RuntimeError(f"unable to {name}; sendfile is in progress")
            method(data)

        return call

    methods = {name: only(name) for name in ("write", "writelines")}
    before = {name: transport.__dict__[name] for name in methods if name in transport.__dict__}
    transport.__dict__.update(methods)
    try:
        yield
    finally:
        for name in methods:
            transport.__dict__.pop(name, None)  # connection_lost() has taken write() away
        if not transport.is_closing():  # its write() of the core is gone with its end
            transport.__dict__.update(before)
