# SPDX-License-Identifier: MIT
"""loop.sendfile() on a transport of the ring: a copy, into which nobody else writes."""

from __future__ import annotations

import asyncio
import tempfile

import pytest

from tests.transports import Recorder, pair, run


def test_nobody_writes_into_a_sendfile() -> None:
    """write() and writelines() of others raise while it runs, and work again afterwards."""
    data = bytes(range(256)) * 4096

    async def main() -> bytes:
        recorder = Recorder()
        async with pair(recorder) as peer:
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.seek(0)
                loop, transport = asyncio.get_running_loop(), recorder.transport
                sending = loop.create_task(loop.sendfile(transport, file))
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
                    transport.write(b"between")
                with pytest.raises(RuntimeError, match="sendfile is in progress"):
                    transport.writelines([b"between"])
                received = await peer.read(len(data))
                assert len(data) == await sending
            transport.write(b"behind")
            transport.close()
            return received + await peer.read_to_end()

    assert data + b"behind" == run(main())
