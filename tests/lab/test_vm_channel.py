# SPDX-License-Identifier: MIT
"""The frames between host and guest: what is sent arrives, what is broken is told from it."""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.vm.channel import Channel, ChannelClosed, FrameError
from lab.vm.inguest.frames import MAX_PAYLOAD, Decoder, encode, to_bytes, to_text

pytestmark = pytest.mark.lab

SOON = 5.0
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
messages = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "seq"), values, max_size=4)


def frames(*contents: dict[str, Any]) -> bytes:
    """Properly numbered frames."""
    return b"".join(encode({"seq": n, **message}) for n, message in enumerate(contents, 1))


def raw(payload: bytes) -> bytes:
    """A frame around any payload."""
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


@given(contents=st.lists(messages, max_size=5), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_frames_arrive_however_the_stream_is_cut(
    contents: list[dict[str, Any]], cuts: list[int]
) -> None:
    """Messages come out as they went in, in order, wherever reads happen to end."""
    stream, decoder, arrived = frames(*contents), Decoder(), []
    for cut in [*cuts, len(stream)]:
        arrived += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert contents == arrived
    assert 0 == decoder.pending


@given(content=messages, position=st.integers(0), flip=st.integers(1, 255))
def test_one_changed_byte_never_passes(content: dict[str, Any], position: int, flip: int) -> None:
    """A frame with any one byte changed is refused, or waits for bytes that never come."""
    stream = bytearray(frames(content))
    stream[position % len(stream)] ^= flip
    decoder = Decoder()
    try:
        arrived = decoder.feed(bytes(stream))
    except FrameError:
        return
    assert [] == arrived
    assert decoder.pending > 0


@given(noise=st.binary(min_size=8, max_size=200))
def test_noise_is_no_message(noise: bytes) -> None:
    """Random bytes give no message: kernel messages on the port would be noticed."""
    try:
        arrived = Decoder().feed(noise)
    except FrameError:
        return
    assert [] == arrived


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (frames({}) + encode({"seq": 1}), "a duplicate frame: number 1, expected 2"),
        (frames({}) + encode({"seq": 3}), "an unexpected frame: number 3, expected 2"),
        (encode({}), "an unexpected frame: number None, expected 1"),
        (encode({"seq": True}), "expected 1"),
        (struct.pack(">II", MAX_PAYLOAD + 1, 0), f"a frame of {MAX_PAYLOAD + 1} bytes"),
        (struct.pack(">II", 0xFFFFFFFF, 0), "a frame of 4294967295 bytes"),
        (raw(b"no json"), "not JSON"),
        (raw(b"[1]"), "no JSON object"),
        (raw(b"\xff\xfe"), "not JSON"),
        (struct.pack(">II", 2, 1) + b"{}", "its CRC-32 is not 0x00000001"),
    ],
)
def test_every_broken_rule_is_named(stream: bytes, complaint: str) -> None:
    """A frame that breaks a rule is refused with a sentence about that rule."""
    with pytest.raises(FrameError, match=complaint):
        Decoder().feed(stream)


@given(data=st.binary(max_size=300))
def test_bytes_survive_their_text(data: bytes) -> None:
    """Output of a process is carried byte for byte."""
    assert data == to_bytes(to_text(data))


def test_a_message_that_is_too_long_is_not_sent() -> None:
    """The sender refuses what the receiver would call a lie."""
    with pytest.raises(ValueError, match="at most 1048576 fit"):
        encode({"data": "x" * MAX_PAYLOAD})


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def test_a_silent_peer_is_a_timeout(pair: tuple[Channel, socket.socket]) -> None:
    """Nothing is waited for longer than asked."""
    channel, _ = pair
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(deadline=begun + 0.05)
    assert time.monotonic() >= begun + 0.05


def test_a_closed_port_tells_whether_a_frame_was_cut(pair: tuple[Channel, socket.socket]) -> None:
    """A peer that dies in the middle of a frame is told from one that had said everything."""
    channel, peer = pair
    peer.sendall(frames({"a": 1}) + b"\0\0\0")
    peer.close()
    assert {"a": 1} == channel.receive(deadline=time.monotonic() + SOON)
    with pytest.raises(ChannelClosed, match="inside a frame, after 3 bytes"):
        channel.receive(deadline=time.monotonic() + SOON)


def test_sending_to_a_peer_that_does_not_read_ends(pair: tuple[Channel, socket.socket]) -> None:
    """A full port is a timeout, not a hang."""
    channel, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(TimeoutError):
        channel.send({"data": "x" * 1_000_000}, deadline=time.monotonic() + 0.2)


def test_both_may_write_at_once(pair: tuple[Channel, socket.socket]) -> None:
    """A channel that is sending takes in what arrives, so two full directions do not lock up."""
    channel, peer = pair
    flood = [{"number": n, "pad": "y" * 50_000} for n in range(40)]
    read: list[dict[str, Any]] = []

    def write_all_then_read_all() -> None:
        peer.sendall(frames(*flood))
        decoder = Decoder()
        while len(read) < 3:
            read.extend(decoder.feed(peer.recv(1 << 16)))

    other = threading.Thread(target=write_all_then_read_all, daemon=True)
    other.start()
    ours = [{"number": n, "pad": "x" * 900_000} for n in range(3)]
    for message in ours:
        channel.send(message, deadline=time.monotonic() + SOON)
    other.join(SOON)
    assert ours == read
    assert flood == [channel.receive(deadline=time.monotonic() + SOON) for _ in flood]


def test_a_dead_machine_is_not_waited_for() -> None:
    """When the watched process has ended and left nothing to read, receive says so at once."""
    ours, theirs = socket.socketpair()
    watch, ended = socket.socketpair()
    with ours, theirs, watch:
        channel = Channel(ours, watch=watch.fileno())
        theirs.sendall(frames({"last": "word"}))
        ended.close()
        assert {"last": "word"} == channel.receive(deadline=time.monotonic() + SOON)
        with pytest.raises(ChannelClosed, match="machine has ended"):
            channel.receive(deadline=time.monotonic() + 60)
