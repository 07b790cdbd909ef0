# SPDX-License-Identifier: MIT
"""abort() loses what the kernel has not taken, as asyncio's does, and nothing else."""

from __future__ import annotations

from tests.transports import Recorder, pair, run, until


def test_what_was_written_before_abort_arrives() -> None:
    """asyncio's write() sends at once, so that abort() in the same callback cuts nothing off."""

    async def main() -> bytes:
        recorder = Recorder()
        async with pair(recorder) as peer:
            recorder.transport.write(b"last words")
            recorder.transport.abort()
            return await peer.read_to_end()

    assert b"last words" == run(main())


def test_what_could_not_be_written_is_told() -> None:
    """asyncio's write() meets the reset at once, and connection_lost() is told, abort() or not."""

    async def main() -> Recorder:
        recorder = Recorder()
        async with pair(recorder) as peer:
            peer.reset()
            recorder.transport.write(b"too late")
            recorder.transport.abort()
            await until(lambda: "lost" in recorder.calls, "connection_lost()")
        return recorder

    assert isinstance(run(main()).lost_by, ConnectionResetError)
