# SPDX-License-Identifier: MIT
"""Frames between the host and a guest's agent.

A frame is a big-endian length and CRC-32 of the payload, then the payload: a JSON object with
"seq", counted up by one from 1 in each direction. Bytes travel in base64.
"""

from __future__ import annotations

import binascii
import json
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # the name alone: importing typing is a twentieth of a second in a guest
    from typing import Any

MAX_PAYLOAD = 1 << 20
"""No frame is longer, in bytes; whoever says so lies."""
CHUNK = 192 << 10
"""Most bytes of a stream in one frame: with base64 and the rest well below MAX_PAYLOAD."""

_HEADER = struct.Struct(">II")


class FrameError(Exception):
    """The other side sent something that is no frame, or not the next one."""


def encode(message: dict[str, Any]) -> bytes:
    """The frame that carries a message."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a message of {len(payload)} bytes; at most {MAX_PAYLOAD} fit")
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


class Decoder:
    """Cuts a stream of bytes into messages and checks each; raises FrameError at the first bad one.

    After that it stays broken: where the next frame starts is not known any more.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._seq = 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            length, crc = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes; at most {MAX_PAYLOAD} are allowed")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            messages.append(self._message(payload, crc))
        return messages

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def _message(self, payload: bytes, crc: int) -> dict[str, Any]:
        if zlib.crc32(payload) != crc:
            raise FrameError(f"a broken frame: its CRC-32 is not {crc:#010x}")
        try:
            message = json.loads(payload)
        except ValueError as error:
            raise FrameError(f"a frame that is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("a frame that holds no JSON object")
        seq = message.pop("seq", None)
        expected = self._seq + 1
        if type(seq) is not int or seq != expected:
            kind = "a duplicate" if isinstance(seq, int) and 0 < seq < expected else "an unexpected"
            raise FrameError(f"{kind} frame: number {seq!r}, expected {expected}")
        self._seq = expected
        return message


def to_text(data: bytes) -> str:
    """Bytes as they stand in a message."""
    return binascii.b2a_base64(data, newline=False).decode()


def to_bytes(text: str) -> bytes:
    """The bytes behind `to_text`; raises ValueError for anything else."""
    return binascii.a2b_base64(text, strict_mode=True)
