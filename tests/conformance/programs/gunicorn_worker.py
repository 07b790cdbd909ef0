# SPDX-License-Identifier: MIT
"""gunicorn with uvicorn's worker, two of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from tests.conformance.programs.common import HOST, TLS, certificate, free_port, many, running

if TYPE_CHECKING:
    _Worker: Any = object
else:
    try:
        from uvicorn_worker import UvicornWorker as _Worker
    except ImportError:
        from uvicorn.workers import UvicornWorker as _Worker

_LOOPS = {"asyncio": "asyncio:SelectorEventLoop", "ioxide": "ioxide:new_event_loop"}


class Worker(_Worker):  # type: ignore[misc]
    """On the loop that the environment names."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": _LOOPS[os.environ.get("CONFORMANCE_LOOP", "asyncio")],
        "http": "auto",
    }


def main() -> None:
    port = free_port()
    with certificate() as (chain, key, root):
        tls = ["--certfile", chain, "--keyfile", key] if TLS else []
        argv = ["-m", "gunicorn", "--workers", "2", "--bind", f"{HOST}:{port}", *tls]
        argv += ["--worker-class", "tests.conformance.programs.gunicorn_worker.Worker"]
        argv += ["tests.conformance.programs.application:app"]
        with running(argv, port):
            many(port, root if TLS else None, requests=400, workers=2)


if __name__ == "__main__":
    main()
