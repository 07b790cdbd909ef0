# SPDX-License-Identifier: MIT
"""pytest-asyncio and anyio's plugin, each with a test that opens a connection on the loop."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.programs.common import LOOP

_COMMON = f'''
import asyncio
import pytest
import {LOOP}

def new_loop():
    return {"asyncio.SelectorEventLoop" if LOOP == "asyncio" else "ioxide.new_event_loop"}()

async def there_and_back():
    kind = type(asyncio.get_running_loop()).__module__.split(".")[0]
    assert "{LOOP}" == kind, kind
    async def handler(reader, writer):
        writer.write(await reader.read(100))
        writer.close()
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"there and back")
    assert b"there and back" == await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
'''
_ASYNCIO = (
    _COMMON
    + """
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return new_loop()

@pytest.fixture(scope="session")
def event_loop_policy():
    return Policy()

@pytest.mark.asyncio
async def test_here():
    await there_and_back()
"""
)
_ANYIO = (
    _COMMON
    + """
@pytest.fixture(params=[("asyncio", {"loop_factory": new_loop})])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def served(anyio_backend):
    await there_and_back()
    yield 7

@pytest.mark.anyio
async def test_here(served):
    assert served == 7
    await there_and_back()
"""
)


def main() -> None:
    for name, text, off in (("asyncio", _ASYNCIO, "anyio"), ("anyio", _ANYIO, "asyncio")):
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / f"test_{name}.py"
            file.write_text(text)
            argv = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", directory]
            done = subprocess.run(
                [*argv, "-p", f"no:{off}", str(file)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "1 passed" in done.stdout, done.stdout


if __name__ == "__main__":
    main()
