# SPDX-License-Identifier: MIT
"""Frames between the host and one agent, over a socket; every broken rule ends the conversation.

The framing itself is in `inguest/frames.py`, which the guest has, too.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from .inguest.frames import Decoder, FrameError, encode
from .machine import ByteStream

_READ = 1 << 16


class ChannelClosed(Exception):
    """The other side is gone; the message says how far it came."""


class Channel:
    """One conversation. `watch` is a descriptor that becomes readable when the peer has died,
    for a QEMU its pidfd: a machine that ended may leave bytes worth reading, but none to wait
    for. Once `interrupt` is readable every wait raises KeyboardInterrupt: it is how a thread that
    no signal reaches learns of one."""

    def __init__(
        self, stream: ByteStream, *, watch: int | None = None, interrupt: int | None = None
    ) -> None:
        self._stream = stream
        self._stream.setblocking(False)
        self._watch = watch
        self._interrupt = interrupt
        self._decoder = Decoder()
        self._sent = 0
        self._ready: deque[dict[str, Any]] = deque()

    def ignore_interrupt(self) -> None:
        """From here on no wait is interrupted: what is left to say is short."""
        self._interrupt = None

    def send(self, message: dict[str, Any], *, deadline: float) -> None:
        """Send one message, taking in what arrives meanwhile.

        The peer may be stuck writing to us while we write to it, so we never only write.
        `deadline` is in time.monotonic() seconds. Raises ValueError, with nothing sent, when the
        message is too long for a frame; TimeoutError, ChannelClosed, FrameError.
        """
        view = memoryview(encode({"seq": self._sent + 1, **message}))
        self._sent += 1
        while view:
            self._wait(deadline, writing=True)
            try:
                view = view[self._stream.send(view) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise ChannelClosed(f"the port does not take a message: {error}") from error
            self._read()

    def receive(self, *, deadline: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError, ChannelClosed, FrameError."""
        while not self._ready:
            self._wait(deadline, writing=False)
            self._read()
        return self._ready.popleft()

    def wait(self, others: Sequence[int], *, timeout_s: float) -> set[int]:
        """Wait until something arrived, the machine ended or one of the descriptors `others` is
        readable; returns which of these are. For at most `timeout_s` seconds."""
        if self._ready:
            return set()
        poll = select.poll()
        for descriptor in (self._stream.fileno(), self._watch, *others):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
        return ready & set(others)

    def ended(self, timeout_s: float) -> bool:
        """Whether the peer's machine has ended, waiting up to `timeout_s` seconds for that. Raises
        KeyboardInterrupt."""
        if self._watch is None:
            return False
        poll = select.poll()
        for descriptor in (self._watch, self._interrupt):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
        if self._interrupt in ready:
            raise KeyboardInterrupt
        return self._watch in ready

    def _wait(self, deadline: float, *, writing: bool) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        # poll, not select: a runner with more than 1024 open files must not be a broken guest.
        poll = select.poll()
        poll.register(self._stream, select.POLLIN | (select.POLLOUT if writing else 0))
        for descriptor in (self._watch, self._interrupt):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
        if not ready:
            raise TimeoutError
        if self._interrupt in ready:
            raise KeyboardInterrupt
        if ready == {self._watch}:
            raise ChannelClosed("the machine has ended")

    def _read(self) -> None:
        try:
            data = self._stream.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosed(f"the port does not read: {error}") from error
        if not data:
            cut = self._decoder.pending
            where = f"inside a frame, after {cut} bytes" if cut else "between frames"
            raise ChannelClosed(f"its port was closed {where}")
        self._ready.extend(self._decoder.feed(data))


__all__ = ["Channel", "ChannelClosed", "FrameError"]
