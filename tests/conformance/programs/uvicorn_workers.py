# SPDX-License-Identifier: MIT
"""``uvicorn --workers 2``."""

from __future__ import annotations

from tests.conformance.programs.common import HOST, LOOP, TLS, certificate, free_port, many, running

FACTORY = {"asyncio": "asyncio:SelectorEventLoop", "ioxide": "ioxide:new_event_loop"}


def main() -> None:
    port = free_port()
    with certificate() as (chain, key, root):
        tls = ["--ssl-certfile", chain, "--ssl-keyfile", key] if TLS else []
        argv = ["-m", "uvicorn", "--workers", "2", "--host", HOST, "--port", str(port)]
        argv += ["--loop", FACTORY[LOOP], *tls, "tests.conformance.programs.application:app"]
        with running(argv, port):
            many(port, root if TLS else None, requests=400, workers=2)


if __name__ == "__main__":
    main()
