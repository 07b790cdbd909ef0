# SPDX-License-Identifier: MIT
"""A loop's process forks: what the child may do to its parent's ring and connections.

Prints, as JSON, what the child was told and what came back over the parent's connection afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable

import ioxide


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


def _told(call: Callable[[], object]) -> str:
    try:
        return f"returned {call()!r}"
    except (RuntimeError, OSError) as error:
        return str(error)


def _child(loop: ioxide.Loop, writer: asyncio.StreamWriter) -> dict[str, str]:
    told = {
        "transport": _told(writer.transport.abort),
        "wait": _told(lambda: loop.driver.wait(0)),
        "close": _told(loop.driver.close),
    }

    async def main() -> str:
        await asyncio.sleep(0)
        return "ran"

    told["own loop"] = ioxide.run(main())  # the child's own ring is as good as any
    return told


async def _main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ioxide.Loop)
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"before")
    before = await reader.readexactly(6)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(into, json.dumps(_child(loop, writer)).encode())
            status = 0
        finally:
            os._exit(status)  # not through the parent's tasks
    os.close(into)
    _, status = os.waitpid(child, 0)
    told = json.loads(os.read(out, 65536) or b"{}")
    after = b""
    try:
        writer.write(b"after")
        async with asyncio.timeout(30):
            after = await reader.read(5)
    except OSError as error:
        after = repr(error).encode()
    print(
        json.dumps(
            {
                "status": os.waitstatus_to_exitcode(status),
                "told": told,
                "echoed": [before.decode(), after.decode()],
            }
        )
    )
    writer.close()
    server.close()


if __name__ == "__main__":
    ioxide.run(_main())
