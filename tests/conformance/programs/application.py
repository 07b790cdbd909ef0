# SPDX-License-Identifier: MIT
"""The ASGI application that the servers serve: it names its loop and its process."""

from __future__ import annotations

import asyncio
import os
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    kind = type(asyncio.get_running_loop()).__module__
    loop = "ioxide" if kind.startswith("ioxide.") else "asyncio"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{loop} {os.getpid()}".encode()})
