# SPDX-License-Identifier: MIT
"""loop.sendfile() on a transport of the ring: a copy, into which nobody else writes."""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import MIB
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


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"count": 0}, ValueError, "count must be a positive integer"),
        ({"count": -1}, ValueError, "count must be a positive integer"),
        ({"count": "9"}, TypeError, "count must be a positive integer"),
        ({"offset": -1}, ValueError, "offset must be a non-negative integer"),
        ({"offset": "9"}, TypeError, "offset must be a non-negative integer"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    options: dict[str, Any], error: type[Exception], named: str, tmp_path: Path
) -> None:
    """As on asyncio's own transports: nothing is sent, and the file is where it was."""
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")

    async def main() -> bytes:
        recorder = Recorder()
        async with pair(recorder) as peer:
            with path.open("rb") as file:
                with pytest.raises(error, match=named):
                    await asyncio.get_running_loop().sendfile(recorder.transport, file, **options)
                assert 0 == file.tell()
            recorder.transport.close()
            return await peer.read_to_end()

    assert b"" == run(main())


def test_a_file_needs_no_fallback(tmp_path: Path) -> None:
    """``fallback=False`` sends a file, as with asyncio, and refuses what is none."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def main() -> bytes:
        recorder, loop = Recorder(), asyncio.get_running_loop()
        async with pair(recorder) as peer:
            with path.open("rb") as file:
                assert 5 == await loop.sendfile(recorder.transport, file, 2, 5, fallback=False)
                assert 7 == file.tell()
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(recorder.transport, io.BytesIO(b"none"), fallback=False)
            assert 4 == await loop.sendfile(recorder.transport, io.BytesIO(b"some"))
            recorder.transport.close()
            return await peer.read_to_end()

    assert b"23456some" == run(main())


def test_a_peer_that_resets_a_sendfile(tmp_path: Path) -> None:
    """What failed is raised, as with asyncio."""
    path = tmp_path / "file"
    path.write_bytes(bytes(16 * MIB))

    async def main() -> None:
        recorder, loop = Recorder(), asyncio.get_running_loop()
        async with pair(recorder) as peer:
            with path.open("rb") as file:
                sending = loop.create_task(loop.sendfile(recorder.transport, file))
                await peer.read(1)
                peer.reset()
                with pytest.raises(ConnectionError):
                    await sending

    run(main())


def test_two_sendfiles_at_once(tmp_path: Path) -> None:
    """The second is refused and changes nothing: the first one goes on, and write() after it."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def main() -> bytes:
        recorder, loop = Recorder(), asyncio.get_running_loop()
        async with pair(recorder) as peer:
            with path.open("rb") as first, path.open("rb") as second:
                results = await asyncio.gather(
                    loop.sendfile(recorder.transport, first),
                    loop.sendfile(recorder.transport, second),
                    return_exceptions=True,
                )
            refused = [str(one) for one in results if isinstance(one, RuntimeError)]
            assert refused == ["unable to send a file; sendfile is in progress"]
            assert 10 in results
            recorder.transport.write(b"behind")
            recorder.transport.close()
            return await peer.read_to_end()

    assert b"0123456789behind" == run(main())
