# SPDX-License-Identifier: MIT
"""abort() loses what the kernel has not taken, as asyncio's does, and nothing else."""

from __future__ import annotations

from tests.transports import Recorder, pair, run


def test_what_was_written_before_abort_arrives() -> None:
    """asyncio's write() sends at once, so that abort() in the same callback cuts nothing off."""

    async def main() -> bytes:
        recorder = Recorder()
        async with pair(recorder) as peer:
            recorder.transport.write(b"last words")
            recorder.transport.abort()
            return await peer.read_to_end()

    assert b"last words" == run(main())
