# SPDX-License-Identifier: MIT
"""Files over HTTP, within a time, whole or not at all. The machine's proxy settings apply."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from .source import FileGone, SourceUnreachable

SILENCE_S = 20.0
"""How long a server may say nothing, in seconds."""
SMALL_S = 60.0
"""How long a file may take in all, in seconds, and as much more as `SLOWEST` allows its size."""
SLOWEST = 100_000
"""Bytes a second below which a server counts as not answering."""
_MOST_TEXT = 16 << 20


def text(url: str) -> bytes:
    """A small file. Raises FileGone, SourceUnreachable."""
    data = bytearray()
    _fetch(url, data.extend, most=_MOST_TEXT)
    return bytes(data)


def download(url: str, into: Path, size: int) -> None:
    """Write a file of `size` bytes. Raises FileGone, SourceUnreachable when it is cut short."""
    with into.open("wb") as file:
        got = _fetch(url, file.write, most=size)
    if got != size:
        raise SourceUnreachable(f"{url} broke off after {got} of {size} bytes")


def size(url: str) -> int:
    """How many bytes the server says a file has. Raises FileGone, SourceUnreachable."""
    answer = _open(urllib.request.Request(url, method="HEAD"))
    with answer:
        length = answer.headers.get("Content-Length", "")
    if not length.isdigit():
        raise SourceUnreachable(f"{url}: the server does not tell its size")
    return int(length)


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    url = request.full_url
    try:
        answer = urllib.request.urlopen(request, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        with error:
            kind = FileGone if error.code in (404, 410) else SourceUnreachable
            raise kind(f"{url}: the server says {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceUnreachable(f"{url} cannot be reached: {reason}") from error
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


def _fetch(url: str, take: object, *, most: int) -> int:
    assert callable(take)
    deadline = time.monotonic() + SMALL_S + most / SLOWEST
    got = 0
    with _open(urllib.request.Request(url)) as answer:
        while True:
            try:
                # read1 returns what there is; read would wait for all of a trickle.
                piece = answer.read1(1 << 16)
            except (OSError, http.client.HTTPException) as error:
                raise SourceUnreachable(f"{url} broke off after {got} bytes: {error}") from error
            if not piece:
                break
            got += len(piece)
            if got > most:
                raise SourceUnreachable(f"{url} is longer than the {most} bytes expected")
            take(piece)
            if time.monotonic() > deadline:
                raise SourceUnreachable(f"{url} is too slow: {got} bytes in its whole time")
        length = answer.length
    if length:
        raise SourceUnreachable(f"{url} broke off after {got} bytes, {length} are missing")
    return got
