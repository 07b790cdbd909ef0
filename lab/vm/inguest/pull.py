# SPDX-License-Identifier: MIT
# It runs in a guest, where each import costs a tenth of a second under emulation.
# ruff: noqa: PTH115, PTH116, PTH118, PTH120, PTH123
"""Writes files of a guest to standard output: `python -c THIS PATH MOST_BYTES`.

For each file, directory and link one line of JSON, and behind that of a file its bytes, "size" of
them. The last line is {"end": true}. What cannot be had is a line {"missing": ...}, what is passed
over {"left_out": ...}; more than MOST_BYTES is {"too_large": ...} before anything else.
"""

from __future__ import annotations

import json
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

PIECE = 1 << 16
SMALL = 1 << 20
"""A file of no more bytes is read before its size is told: that of one in /proc is 0."""


def pull(path: str, most: int, out: BinaryIO) -> None:
    """Write what is at `path`; a link there is followed."""
    root = os.path.realpath(path)

    def say(**words: object) -> None:
        out.write(json.dumps(words).encode() + b"\n")

    try:
        top = os.stat(root)
    except OSError as error:
        say(missing=os.strerror(error.errno or 0))
        return
    if stat.S_ISDIR(top.st_mode):
        size = sum(status.st_size for _, _, status in walk(root) if stat.S_ISREG(status.st_mode))
    else:
        size = top.st_size
    if size > most:
        say(too_large=size)
        return
    if not stat.S_ISDIR(top.st_mode):
        put(root, "", top, out, say)
    else:
        say(kind="directory", name="", mode=top.st_mode & 0o777)
        for place, name, status in walk(root):
            if stat.S_ISDIR(status.st_mode):
                say(kind="directory", name=name, mode=status.st_mode & 0o777)
            elif stat.S_ISLNK(status.st_mode):
                try:
                    target = os.readlink(place)
                except OSError as error:
                    say(left_out=f"{name}: {os.strerror(error.errno or 0)}")
                    continue
                if target == root or target.startswith(root + "/"):
                    target = os.path.relpath(target, os.path.dirname(place))
                say(kind="link", name=name, target=target)
            else:
                put(place, name, status, out, say)
    say(end=True)


def walk(root: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """What is below a directory, itself not among it: (path, name below it, status)."""
    for directory, directories, files in os.walk(root):
        directories.sort()
        for one in sorted([*directories, *files]):
            place = os.path.join(directory, one)
            try:
                yield place, os.path.relpath(place, root), os.lstat(place)
            except FileNotFoundError:
                continue  # gone since its directory was read


def put(place: str, name: str, status: os.stat_result, out: BinaryIO, say: object) -> None:
    """Write one file."""
    assert callable(say)
    if not stat.S_ISREG(status.st_mode):
        say(left_out=f"{name or place}: neither a file, a directory nor a link")
        return
    try:
        with open(place, "rb") as file:
            head = file.read(SMALL)
            size = max(len(head), status.st_size)
            say(
                kind="file",
                name=name,
                mode=status.st_mode & 0o777,
                mtime=int(status.st_mtime),
                size=size,
            )
            out.write(head)
            left = size - len(head)
            while left and (data := file.read(min(PIECE, left))):
                out.write(data)
                left -= len(data)
    except OSError as error:
        say(left_out=f"{name or place}: {os.strerror(error.errno or 0)}")
        return
    if left:  # cut short by somebody since its size was told, which has to come true
        while left:
            out.write(bytes(min(PIECE, left)))
            left -= min(PIECE, left)
        say(left_out=f"{name or place}: it became shorter while it was read; zeros stand behind")


if __name__ == "__main__":
    pull(sys.argv[1], int(sys.argv[2]), sys.stdout.buffer)
