# SPDX-License-Identifier: MIT
"""An IPython kernel whose asyncio loops are ours, and jupyter_client that asks it something."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conformance.programs.common import LIMIT, LOOP, use_policy

CODE = """
import asyncio
async def there_and_back():
    async def handler(reader, writer):
        writer.write(await reader.read(100)); writer.close()
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"there and back"); answer = await reader.read()
    writer.close(); server.close()
    return answer
print(type(asyncio.get_running_loop()).__module__.split(".")[0], (await there_and_back()).decode())
"""


def kernel() -> None:
    """The kernel's process."""
    from ipykernel.kernelapp import IPKernelApp  # type: ignore[import-not-found]

    use_policy()
    IPKernelApp.launch_instance(["-f", sys.argv[4]])


def main() -> None:
    from jupyter_client import BlockingKernelClient  # type: ignore[import-not-found]
    from jupyter_client.launcher import launch_kernel  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "kernel.json"
        module = "tests.conformance.programs.ipykernel_client"
        command = [sys.executable, "-m", module, LOOP, "tcp", "kernel", str(file)]
        process = launch_kernel(command, env={**os.environ, "JUPYTER_CONFIG_DIR": directory})
        try:
            deadline = time.monotonic() + LIMIT
            while not file.exists() or not file.read_text().strip().endswith("}"):
                assert process.poll() is None, "the kernel ended"
                assert time.monotonic() < deadline, "the kernel wrote no connection file"
                time.sleep(0.05)
            client: Any = BlockingKernelClient(connection_file=str(file))
            client.load_connection_file()
            client.start_channels()
            client.wait_for_ready(timeout=LIMIT)
            said: list[str] = []

            def hear(message: Any) -> None:
                if message["msg_type"] == "stream":
                    said.append(message["content"]["text"])

            reply = client.execute_interactive(CODE, timeout=LIMIT, output_hook=hear)
            assert reply["content"]["status"] == "ok", reply["content"]
            assert f"{LOOP} there and back" == "".join(said).strip(), said
            client.shutdown()
            process.wait(LIMIT)
            client.stop_channels()
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[3:4] == ["kernel"]:
        kernel()
    else:
        main()
