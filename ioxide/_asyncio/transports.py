# SPDX-License-Identifier: MIT
"""asyncio's face of a connection: an `asyncio.Transport` over the core that handlers use as well.

The core receives, sends and closes; this module turns its events into a protocol's callbacks.  The
transport has one standing waiter in the core.  It goes through the queue that also resumes
handlers' tasks, and is called from the same place: no task is current, and the batch was taken in.
One call delivers one piece of bytes; when the protocol closes, pauses or raises, the other bytes
stay in the core's queue.
"""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextvars
import logging
import os
import socket
import sys
import warnings
from asyncio import constants, transports
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ioxide._asyncio.timed import TimedProtocol, timed
from ioxide._driver.sockets import TransportSocket

if TYPE_CHECKING:
    from ioxide._driver.connection import Connection

logger = logging.getLogger("asyncio")

# As asyncio's own transports: what data_received() is given at most.
_MAX_SIZE = 256 * 1024

_WRITELINES_ASKS_FIRST = sys.version_info >= (3, 12)
_SERVER_KNOWS_CLIENTS = sys.version_info >= (3, 13)  # Server._attach() then takes the transport


def _limits() -> tuple[int, int]:
    """The high and the low limit of a write buffer before anybody sets them, in bytes."""
    made: Any = transports._FlowControlMixin(None, object())  # type: ignore[arg-type]
    return made._high_water, made._low_water


_LIMITS = _limits()


class Transport(transports._FlowControlMixin, asyncio.Transport):
    """A TCP connection of ``loop.create_server()``, ``create_connection()`` and their like.

    Made by `ioxide.Loop`.  Its contract is asyncio's.  What differs is said here:

    * ``abort()`` with bytes still to be sent resets the connection, so that the peer does not take
      a cut-off stream for a whole one.  So does the end of the loop.
    * A socket that was lent with ``sock=`` is kept open until ``connection_lost()``, also when its
      owner closes it earlier.
    * ``write()`` copies and returns; what one batch of callbacks wrote leaves in one SEND.  From
      32 KiB on `bytes`, and memoryviews of `bytes`, are not copied but kept alive until they are
      sent, or the connection has ended.
      A failure to send is reported by ``connection_lost(exc)``, after what had been received.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE  # which in Loop is a copy

    if TYPE_CHECKING:  # the mixin's, of which typeshed does not tell
        _extra: dict[str, Any]
        _protocol_paused: Any
        _high_water: int
        _low_water: int

        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

    _connection: Connection | None = None  # for __del__, should __init__ raise
    _sock: socket.socket | None = None
    _attached: bool | None = None  # whether the core refers to it, see _rest(); None: not yet

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        protocol: asyncio.BaseProtocol,
        sock: socket.socket | None = None,
        *,
        family: int,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: contextvars.Context | None = None,
    ) -> None:
        # What the mixin's __init__() does, without its calls: 7 % of the instructions of a short
        # connection.
        self._extra = {} if extra is None else extra
        self._protocol_paused = False
        self._high_water, self._low_water = _LIMITS
        self._loop: Any = loop
        self.context = contextvars.copy_context() if context is None else context
        self._server = server
        # The number that the caller knows: for repr() and loop._transports, never to be used.
        self._fd = connection.fileno() if sock is None else sock.fileno()
        if sock is None:
            self._extra["socket"] = TransportSocket(connection, family)
        else:
            self._extra["socket"] = asyncio.trsock.TransportSocket(sock)
        if "sockname" not in self._extra:
            self._extra["sockname"] = connection._sockname()
        if "peername" not in self._extra:
            self._extra["peername"] = connection._peername()  # also when the peer has reset since
        self._conn_lost = 0  # connection_lost() is on its way; then: writes since
        self._closing = False
        self._paused = False
        self._eof = False  # write_eof() was called
        self._ended = False  # the peer's end has been seen
        self._reading = False
        self._put = connection._put
        self._received: Callable[[], object]
        self._data_received: Any
        self.set_protocol(protocol)
        self._connection = connection
        connection._take_writes(self._high_water)
        self.write = connection._writer(self)  # type: ignore[method-assign, assignment]
        self._sock = sock  # lent by the caller, of whose file the connection has a duplicate
        if server is not None:
            server._attach(self) if _SERVER_KNOWS_CLIENTS else server._attach()
        loop._transports[self._fd] = self  # type: ignore[attr-defined]
        self._waiter = waiter
        self._resumed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._connection is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._fd}")
        if self._connection is not None:
            info.append("read=polling" if self._reading else "read=idle")
            info.append(f"write=<bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    @property
    def number_given_up(self) -> bool:
        """Whether the owner of a socket that was lent has closed it, so that its number is free."""
        return self._sock is not None and self._sock.fileno() != self._fd

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._connection is not None:
            try:
                _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            finally:  # the warning may be an error
                if self._attached is False and not self._loop.is_closed():
                    self._end_unheld(self._connection)
                if self._sock is not None:
                    self._sock.close()

    # Its beginning

    def begin(self) -> None:
        """Tell the protocol, then start to read; in the transport's context, no task current."""
        try:
            self._calls.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            # As with asyncio, where this is a callback of its own: the connection goes on.
            protocol = self._protocol
            call = protocol.connection_made
            name = getattr(call, "__qualname__", repr(call))
            self._loop.call_exception_handler(
                {
                    "message": f"Exception in callback {name}()",
                    "exception": error,
                    "transport": self,
                    "protocol": protocol,
                }
            )
        finally:
            self._made()

    def _made(self) -> None:
        if self._connection is not None and not self._conn_lost:
            self._rouse(self._connection)
            if self._closing or self._protocol_paused:
                self._sent(self._connection)  # what was to be watched before there was a face
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._start_reading()
            return
        # The waiter goes on first: data_received() may need what it does with the transport.
        if not waiter.done():
            waiter.set_result(None)
        self._loop.call_soon(self._start_reading, context=self.context)

    def _start_reading(self) -> None:
        self._set_reading()
        self._rest()

    # The core refers to it only while it reads or has bytes to send, as asyncio's selector does by
    # a reader and a writer.  A transport that was forgotten while it is paused, or after the peer's
    # FIN, is then closed by the garbage collector.

    def _rest(self) -> None:
        """Drop the core's reference to this transport, if no event can come."""
        connection = self._connection
        if self._reading or self._closing or not self._attached or connection is None:
            return
        if self._protocol_paused:
            return  # its event comes, and then this is asked again
        if connection.unsent:
            connection._watch(0)
            return
        self._attached = False
        connection._refuse_writes()
        connection._detach()
        self._put = self._put_again

    def _rouse(self, connection: Connection) -> None:
        self._attached = True
        connection._attach(self._event, self.context)
        self._deliver()
        self._put = connection._put
        self._take_writes(connection)

    def _take_writes(self, connection: Connection) -> None:
        """Have the core take what `write` is given, but from the end of writing on."""
        if not self._eof and not self._conn_lost:
            connection._take_writes(self._high_water)

    def _put_again(self, data: bytes | bytearray | memoryview) -> int:
        """What `_put` is meanwhile: the core refers to this transport until `data` is sent."""
        connection = self._connection
        assert connection is not None
        self._rouse(connection)
        try:
            return connection._put(data)
        finally:
            connection._watch(0)

    def _end_unheld(self, connection: Connection) -> None:
        """Called by the collector, on whatever thread it runs."""
        if self._sock is None:
            self._extra["socket"].release()
        if self._server is not None and _SERVER_KNOWS_CLIENTS:
            self._server._detach(self)
        if self._loop.driver.here:
            connection._drop()
        else:
            self._loop.call_soon_threadsafe(connection._drop)

    # Events of the core

    def _event(self, what: object) -> None:
        """Called by the core, once for each event (`Connection._attach()`).

        The core itself gives bytes to a protocol that is no `asyncio.BufferedProtocol`.
        """
        reading = self._reading
        if isinstance(what, BaseException):
            self._fatal_error(what, "Fatal error: protocol.data_received() call failed.")
        elif what is not True and reading:
            self._received()
        connection = self._connection
        if connection is None or self._conn_lost:
            return
        if self._protocol_paused or self._closing or not reading or connection._broken:
            self._sent(connection)

    def _received_data(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection._take(_MAX_SIZE)
        except OSError as error:
            self._fatal_error(error, "Fatal read error on socket transport")
            return
        if data:
            try:
                self._data_received(data)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")
        elif data is not None:
            self._on_eof()

    def _received_buffer(self) -> None:
        assert self._connection is not None
        calls = self._calls
        if self._connection._queued:
            try:
                buffer = calls.get_buffer(-1)
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal error: protocol.get_buffer() call failed.")
                return
            if self._conn_lost:
                return
        else:
            buffer = bytearray()
        try:
            count = self._connection._take_into(buffer)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal read error on socket transport")
            return
        if count > 0:
            try:
                calls.buffer_updated(count)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal error: protocol.buffer_updated() call failed.")
        elif count == 0:
            self._on_eof()

    def _on_eof(self) -> None:
        self._ended = True
        self._set_reading()
        if self._loop._debug:
            logger.debug("%r received EOF", self)
        try:
            keep_open = self._calls.eof_received()
        except (SystemExit, KeyboardInterrupt):
            self._ended = False  # as asyncio, which asks again when the loop is run again
            self._set_reading()
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()
        self._rest()

    def _sent(self, connection: Connection) -> None:
        """Written bytes were taken by the kernel, or never will be."""
        try:
            connection._check()
        except OSError as error:
            if self._reading and connection._queued:
                return  # what the peer had sent first; each piece makes a call of its own
            self._fatal_error(error, "Fatal write error on socket transport")
            return
        if self._protocol_paused:
            resume: Callable[[], None] = self._maybe_resume_protocol  # may write, close, ...
            try:
                timed(self, "resume_writing", resume)() if self._loop.get_debug() else resume()
            finally:
                if not self._protocol_paused:
                    self._tell_resumed()
        if self._conn_lost:
            return
        if self._protocol_paused:
            connection._watch(self._low_water)
        elif self._closing:
            if connection.unsent:
                connection._watch(0)
            else:
                self._force_close(None)
        else:
            self._rest()

    def _tell_resumed(self) -> None:
        waiter, self._resumed = self._resumed, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def resumed(self) -> None:
        """Wait until the protocol is not asked to pause writing any more, or all is over."""
        if self._protocol_paused and not self._conn_lost:
            self._resumed = self._loop.create_future()
            await self._resumed

    # Reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._calls: Any = protocol
        if self._loop is not None and self._loop._debug:
            self._calls = TimedProtocol(self, protocol)
        buffered = isinstance(protocol, asyncio.BufferedProtocol)
        if buffered:
            self._received = self._received_buffer
        else:
            self._received = self._received_data
        # Looked up at once, as by asyncio's: what has none is no protocol of a stream.
        self._data_received = None if buffered else self._calls.data_received
        self._deliver()

    def _deliver(self) -> None:
        """Tell the core whom it gives bytes."""
        # At rest the core is not to refer to it by its protocol; _rouse() tells.
        if self._connection is not None and self._attached and not self._conn_lost:
            self._connection._deliver_to(self._data_received)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if not self.is_reading():
            return
        self._paused = True
        self._set_reading()
        self._rest()
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused = False
        self._set_reading()
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)

    def _set_reading(self) -> None:
        reading = not (self._paused or self._closing or self._ended)
        if reading != self._reading and self._connection is not None:
            self._reading = reading
            if self._attached is False:
                self._rouse(self._connection)
            self._connection._read(reading)

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._write_slowly(
            data
        )  # until it is over, each transport has what `Connection._writer()` made here

    def _write_slowly(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._conn_lost:
            # As asyncio: while close() still sends what was written before, more is taken (TLS ends
            # its stream that way); afterwards it is dropped, and said after some times.
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
            return
        try:
            unsent = self._put(data)
        except OSError:
            return  # sending has failed: the core's event, which is on its way, says why
        if unsent > self._high_water:
            self._full()

    def _full(self) -> None:
        if not self._protocol_paused:
            self._pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        # Until 3.11 asyncio joins first, and a wrong type is told before the end of writing.
        if self._eof and _WRITELINES_ASKS_FIRST:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        self.write(b"".join(list_of_data))  # all or, if one of them has a wrong type, nothing

    def _pause_protocol(self) -> None:
        try:
            self._maybe_pause_protocol()
        finally:  # also where pause_writing() is interrupted
            if self._protocol_paused and self._connection is not None:
                self._connection._watch(self._low_water)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, low)
        if self._connection is None:
            return
        if self._attached is not False:
            self._take_writes(self._connection)
        if self._protocol_paused:
            self._connection._watch(self._low_water)

    def get_write_buffer_size(self) -> int:
        return 0 if self._connection is None else self._connection.unsent

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        assert self._connection is not None
        self._connection._refuse_writes()
        self._connection._end_writes()

    def can_write_eof(self) -> bool:
        return True

    # Its end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._set_reading()
        connection = self._connection
        assert connection is not None
        if connection.unsent:
            connection._watch(0)
        else:
            self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        if isinstance(exc, OSError):
            if self._loop is not None and self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        elif self._loop is not None:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(exc)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost or self._connection is None:
            return
        self._closing = True
        failed = self._connection._drop()
        self._set_reading()
        if exc is None and failed:
            exc = OSError(failed, os.strerror(failed))  # asyncio's write() has met it by now
        self._lose(exc)

    def _lose(self, exc: BaseException | None) -> None:
        """End the events; connection_lost() follows in a callback of its own, once."""
        self._conn_lost += 1
        assert self._connection is not None
        self._connection._refuse_writes()
        self._connection._detach()
        self._tell_resumed()
        self._loop.call_soon(self._call_connection_lost, exc, context=self.context)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._give_up()
            self._put = self._received = self._data_received = _gone
            self.__dict__.pop("write", None)  # which refers to this transport
            self._protocol = self._calls = None
            self._loop = None
            server, self._server = self._server, None
            if server is not None:
                server._detach(self) if _SERVER_KNOWS_CLIENTS else server._detach()

    def _give_up(self) -> None:
        """Leave the connection to the core, which ends it in its own time."""
        self._connection = None
        sock, self._sock = self._sock, None
        if sock is None:
            self._extra["socket"].release()
        else:
            sock.close()


def _gone(*_: Any) -> Any:
    raise RuntimeError("this transport's connection has ended")
