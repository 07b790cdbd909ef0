# SPDX-License-Identifier: MIT
"""aiosmtpd's Controller: its loop is made here and runs in a thread of its own."""

from __future__ import annotations

import smtplib
import ssl
from typing import Any

from aiosmtpd.controller import Controller  # type: ignore[import-not-found]

from tests.conformance.programs.common import (
    HOST,
    TLS,
    certificate,
    free_port,
    new_loop,
    server_context,
)


class Handler:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.received.append(envelope.content)
        return "250 OK"


def main() -> None:
    handler, port, loop = Handler(), free_port(), new_loop()
    with certificate() as (chain, key, root):
        options = {"ssl_context": server_context(chain, key)} if TLS else {}
        controller = Controller(handler, loop=loop, hostname=HOST, port=port, **options)
        controller.start()
        try:
            trusted = ssl.create_default_context(cafile=root)
            for number in range(5):
                client = (
                    smtplib.SMTP_SSL(HOST, port, context=trusted, timeout=30)
                    if TLS
                    else smtplib.SMTP(HOST, port, timeout=30)
                )
                with client:
                    client.sendmail("a@example.org", ["b@example.org"], f"letter {number}")
        finally:
            controller.stop()
    assert [f"letter {n}\r\n".encode() for n in range(5)] == handler.received, handler.received


if __name__ == "__main__":
    main()
