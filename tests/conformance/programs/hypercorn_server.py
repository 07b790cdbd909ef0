# SPDX-License-Identifier: MIT
"""hypercorn's own ``serve()``, which takes the running loop."""

from __future__ import annotations

import asyncio
from typing import Any

from hypercorn.asyncio import serve  # type: ignore[import-not-found]
from hypercorn.config import Config  # type: ignore[import-not-found]

from tests.conformance.programs.application import app
from tests.conformance.programs.common import HOST, LOOP, TLS, certificate, free_port, get, run


async def main() -> None:
    port, stop = free_port(), asyncio.Event()
    with certificate() as (chain, key, root):
        config: Any = Config()
        config.bind = [f"{HOST}:{port}"]
        if TLS:
            config.certfile, config.keyfile = chain, key
        task = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
        for _ in range(200):
            await asyncio.sleep(0.05)
            try:
                (await asyncio.open_connection(HOST, port))[1].close()
                break
            except ConnectionRefusedError:
                continue
        for _ in range(20):
            status, body = await asyncio.to_thread(get, port, root if TLS else None)
            assert (status, body.split()[0].decode()) == (200, LOOP), (status, body)
        stop.set()
        await task


if __name__ == "__main__":
    run(main())
