# SPDX-License-Identifier: MIT
"""The face of a connection that a handler sees."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ioxide._driver.futures import Future
from ioxide._ring import _core


class ReadBlock:
    """What `Connection.read()` returns: ``async with`` it to look at received bytes in place."""

    __slots__ = ("_connection", "_slices", "_views")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._slices: list[_core.Slice] = []
        self._views: list[memoryview] = []

    async def __aenter__(self) -> Sequence[memoryview]:
        if self._slices:
            raise RuntimeError("this read() block is already open: call read() again")
        self._slices = await self._connection._recv_slices()
        self._views = [memoryview(part) for part in self._slices]
        return tuple(self._views)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Ended before they are released: then the last view, ours or one that the handler made of
        # it and still holds, gives the buffer back, and no new view can be made.
        for part in self._slices:
            part.end()
        views, self._slices, self._views = self._views, [], []
        for view in views:
            with contextlib.suppress(BufferError):  # exported once more, by numpy or the like
                view.release()


class Connection(_core.Connection):
    """One accepted TCP connection; belongs to the reactor thread that accepted it.

    Made by the reactor and handed to the handler.  When the handler ends, what it wrote is still
    sent, then the connection is closed: a handler need not call `close()`.  On another thread all
    methods, `peername` and `sockname` raise a `RuntimeError` that names the reactor; what `recv()`
    and `flush()` return raises it when it is awaited, and warns as a coroutine does when it never
    is.  `closed` and `unsent` may be read anywhere.

    ``await conn.recv()`` returns what has arrived, at least one byte, in order; ``b""`` when the
    peer has ended its side (which leaves ours open for writing) or when this side was closed.
    ``recv(limit)`` returns at most `limit` bytes and keeps the rest.  A cancelled ``recv()`` loses
    nothing: the next one returns the same bytes.  One task may read at a time; a second one gets
    `RuntimeError`.  Raises `ConnectionResetError` when the peer reset the connection, and
    `ConnectionAbortedError` when a clock (`ServerConfig.read_timeout_ms`) or `abort()` ended it.

    ``write(data)`` takes `data` and returns; the bytes leave at the end of the batch, those of
    one batch in one submission.  It copies, so that `data` may be changed afterwards.  From 32 KiB
    on `bytes`, and memoryviews of `bytes`, which nobody can change, are kept alive and sent from
    where they are; they count for `ServerConfig.write_limit` as all others do, and are let go of
    with the completion of their send.  Raises `BufferError` when more than
    `ServerConfig.write_limit` bytes would wait, and `BrokenPipeError` or the peer's error when
    nothing can be sent any more.

    ``await conn.flush()`` waits until the kernel has taken everything written before the call:
    that is the backpressure.  Any number of tasks may flush.

    ``close()`` sends what was written, then FIN, and throws away what still arrives until the peer
    closes too.  ``abort()`` drops everything and resets.  Both may be called more than once.

    Other threads have ``write_threadsafe(data)``, ``flush_threadsafe()`` and
    ``close_threadsafe()``.  They queue what `write()`, `flush()` and `close()` do.  The reactor
    does it in its next tick, or before the next such call of its own thread, the end of a handler
    included: the calls of one thread keep their order, and a handler that has waited for a thread
    goes on after what that thread wrote.  ``write_threadsafe()`` raises what `write()` would raise
    now.  A write that finds its connection ended when the reactor takes it is dropped and counted
    (`Counters.foreign_drops`), and the `flush_threadsafe()` after it raises.  A buffer of a
    `read()` block may be given back on any thread.
    """

    __slots__ = ()

    def read(self) -> ReadBlock:
        """Look at received bytes without copying them.

        ``async with conn.read() as slices:`` gives a tuple of read-only memoryviews, empty at the
        end of the stream.  They are valid inside the block; used afterwards they raise
        `ValueError`.  While the block is open the buffers are not available to other connections
        of this reactor, so it is no place to wait for more of the same message.
        """
        return ReadBlock(self)

    def flush_threadsafe(self) -> Future[None]:
        """What `flush()` waits for, as a future; from any thread.

        It is done when the kernel has taken everything that this thread wrote before, and raises
        what `flush()` would raise; `ConnectionAbortedError` when the reactor was stopped first.
        """
        future: Future[None] = Future(self._loop.driver)
        self._flush_threadsafe(functools.partial(self._settle, future))
        return future

    def _settle(self, future: Future[None], waiter: _core.Waiter) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            self._flushed(waiter)
        except OSError as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    @property
    def peername(self) -> Any:
        """The peer's address, as `socket.accept()` gives it, also when the peer has reset since.

        None once the connection has ended.
        """
        return self._peername()

    @property
    def sockname(self) -> Any:
        """Our own address; None once the connection has ended."""
        return self._sockname()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ioxide.Connection fd={self._fd} {state} unsent={self.unsent}>"
