# SPDX-License-Identifier: MIT
"""Whether this kernel does right what a configuration asks for; found out by doing it, at start.

A kernel may have a feature and spoil it (docs/errata.md).  Its version does not tell, since fixes
travel, so each way that a configuration asks for is tried once a process, on a ring and connections
of its own: a few ms.  A configuration that asks for none pays nothing.

What is received goes through the reactor's own buffers (``group.c``), so what that works around
counts as right.
"""

from __future__ import annotations

import array
import errno
import fcntl
import random
import signal
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from ioxide._common.config import ServerConfig
from ioxide._probe.rawring import WAIT_MS, Completion, RawRing
from ioxide._ring import ffi, lib

__all__ = ["EXPERIMENTS", "complaint"]

_FLAGS = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN | lib.IOX_SETUP_SUBMIT_ALL
_GROUP = 7
# Bytes before and behind an urgent mark, at which a receive stops short with more waiting: that is
# what a stream in full flow does now and then.  Between buffers, inside one, and over several.
_MESSAGES = ((1500, 700), (100, 2900), (1024, 1), (37, 4000))
_ENTRIES, _SIZE = 16, 512

# Only a silence is tried again: it has a harmless reason as well (`_undisturbed`).
_ATTEMPTS = 3
# Nothing has to arrive any more when a receive is asked for, so this is long on any machine.
_SILENCE_MS = 1000

# What says nothing of the kernel or the network, and goes away when there is more of it.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

_lock = threading.Lock()
_results: dict[str, str] = {}


class _SilenceError(Exception):
    """Bytes that wait in a socket were not received."""


def _loopback(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection; AF_UNIX has no urgent mark that is in line."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
    listener.settimeout(WAIT_MS / 1000)
    near = stack.enter_context(socket.create_connection(listener.getsockname(), WAIT_MS / 1000))
    far = stack.enter_context(listener.accept()[0])
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return near, far


def _wait_for(far: socket.socket, length: int) -> None:
    """Return when `length` bytes wait in `far`, or never came."""
    deadline = time.monotonic() + WAIT_MS / 1000
    count = array.array("i", [0])
    while fcntl.ioctl(far, termios.FIONREAD, count) == 0 and count[0] < length:
        if time.monotonic() > deadline:
            return
        time.sleep(0)


@contextmanager
def _buffers(ring: RawRing, *, incremental: bool, bundle: bool) -> Iterator[object]:
    """Receive buffers as the reactor has them. Raises OSError as their registration failed."""
    group = lib.iox_group_new(_ENTRIES, _SIZE, incremental, bundle)
    if group == ffi.NULL:
        raise MemoryError("receive buffers of an experiment")
    try:
        result = lib.iox_group_register(group, ring.fd, _GROUP)
        if result < 0:
            raise OSError(-result, "IORING_REGISTER_PBUF_RING")
        try:
            yield group
        finally:
            lib.iox_group_unregister(group, ring.fd)
    finally:
        lib.iox_group_unref(group)


def _taken(group: object, completion: Completion) -> bytes | None:
    """The bytes of one completion, whose buffers go back; None if they cannot be there."""
    offset, following = ffi.new("uint32_t *"), ffi.new("uint16_t *")
    left, bid, got = completion.res, completion.buffer_id, b""
    while left:
        step = lib.iox_group_take(group, bid, left, completion.buf_more, offset, following)
        if not step:
            return None
        got += bytes(ffi.buffer(lib.iox_group_buffer(group, bid) + offset[0], step))
        lib.iox_group_release(group, bid)
        left, bid = left - step, following[0]
    return got


class _Stream:
    """One connection, its multishot receive, and what came of what was sent."""

    def __init__(self, stack: ExitStack, ring: RawRing, number: int, ioprio: int) -> None:
        self._near, self._far = _loopback(stack)
        self._ring, self._number, self._ioprio = ring, number, ioprio
        self._armed = False
        self.sent, self.got = b"", b""

    def send(self, before: bytes, after: bytes) -> None:
        self._near.sendall(before)
        self._near.send(after[:1], socket.MSG_OOB)
        self._near.sendall(after[1:])
        self.sent += before + after
        _wait_for(self._far, len(before) + len(after))

    def receive(self, group: object) -> str:
        """Everything that was sent; a sentence if it is not that, otherwise nothing.

        Raises `_SilenceError` when no completion comes although bytes are missing.
        """
        while len(self.got) < len(self.sent):
            if not self._armed:
                self._ring.recv(
                    self._far.fileno(), group=_GROUP, ioprio=self._ioprio, user_data=self._number
                )
            found = self._ring.collect(1, timeout_ms=_SILENCE_MS)
            if not found:
                raise _SilenceError(f"{len(self.sent) - len(self.got)} bytes never came")
            for completion in found:
                if completion.user_data != self._number:
                    return f"{completion.describe()} of nothing"
                self._armed = completion.more
                if completion.res > 0 and completion.buffer_id is not None:
                    piece = _taken(group, completion)
                    if piece is None:
                        return f"{completion.describe()}: it was not in the kernel's hands"
                    self.got += piece
                    if not self.sent.startswith(self.got):
                        return f"{completion.describe()}: {len(self.got)} bytes, out of order"
                elif completion.res != -errno.ENOBUFS:
                    return completion.describe()
            lib.iox_group_publish(group)
        return ""


def _bytes_in_order(*, incremental: bool = False, bundle: bool = False) -> str:
    """Two streams through the same buffers, in turn: what is wrong, or nothing."""
    draw = random.Random(1)
    ioprio = lib.IOX_RECV_MULTISHOT | (lib.IOX_RECVSEND_BUNDLE if bundle else 0)
    with (
        ExitStack() as stack,
        RawRing(flags=_FLAGS) as ring,
        _buffers(ring, incremental=incremental, bundle=bundle) as group,
    ):
        streams = [_Stream(stack, ring, number, ioprio) for number in (1, 2)]
        for sizes in _MESSAGES:
            for stream in streams:
                stream.send(*map(draw.randbytes, sizes))
                if wrong := stream.receive(group):
                    return wrong
    return ""


EXPERIMENTS: dict[str, Callable[[], str]] = {
    "recv_bundle": partial(_bytes_in_order, bundle=True),
    "incremental": partial(_bytes_in_order, incremental=True),
}
"""By the way that a configuration asks for: what is wrong with it here, in a few words, and empty
if nothing is.  Raises OSError if it could not be tried."""


def _undisturbed(experiment: Callable[[], str]) -> str:
    """The answer of `experiment`, which runs on a thread of its own, without signals.

    A receive that begins at an urgent mark fails with EAGAIN while a signal is pending on its
    thread, although bytes wait (tcp_recvmsg_locked() in net/ipv4/tcp.c, Linux 2.6 to 7.3).  A
    multishot receive then waits for an event that is over.  A ring that is closed signals each
    thread that has used it (io_ring_exit_work() in io_uring.c, task work with TWA_SIGNAL), and
    the caller has just closed one: on 6.18 one experiment of a hundred met that.

    Raises what `experiment` raises, and OSError (EAGAIN) if there can be no further thread.
    """
    answers: list[str] = []
    errors: list[BaseException] = []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            answers.append(experiment())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ioxide-soundness")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"a thread for an experiment: {error}") from error
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def _tried(experiment: Callable[[], str]) -> str:
    """The answer of `experiment`; a silence is one only after several attempts."""
    for attempt in range(_ATTEMPTS):
        try:
            return _undisturbed(experiment)
        except _SilenceError as error:
            silence = f"{error}, in {attempt + 1} attempts"
    return silence


def _wrong(name: str) -> str:
    """The experiment's answer, once a process; where it cannot be made, nothing is remembered."""
    with _lock:
        if name not in _results:
            try:
                _results[name] = _tried(EXPERIMENTS[name])
            except OSError as error:
                if error.errno in _SHORT:
                    raise
                return f"it could not be tried over the loopback interface: {error}"
        return _results[name]


def complaint(config: ServerConfig) -> str:
    """Why this kernel must not be asked for what `config` asks for, as one sentence; or nothing.

    Raises OSError where descriptors or memory for an experiment are lacking.
    """
    if config.recv_bundle and (wrong := _wrong("recv_bundle")):
        return (
            f"recv_bundle=True would put bytes out of order on this kernel (IOX-ERR-005, a bundle "
            f"goes on in the next buffer after a short receive; seen just now: {wrong}). Leave it "
            "out: a completion is then one buffer, which this kernel does right."
        )
    if config.incremental is not None and (wrong := _wrong("incremental")):
        return (
            f"incremental would put bytes out of order on this kernel (IOX-ERR-006 or one of its "
            f"kind; seen just now: {wrong}). Leave it out: connections then share buffers, which "
            "this kernel does right."
        )
    return ""
