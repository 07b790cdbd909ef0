# SPDX-License-Identifier: MIT
"""The archive format of an initramfs: cpio "newc" (Documentation/driver-api/early-userspace/
buffer-format.rst in the kernel)."""

from __future__ import annotations

import stat

_TRAILER = "TRAILER!!!"


class Cpio:
    """An archive in the making. The same calls give the same bytes: no clock, no inode numbers."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries = 0

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory; its parent must have been added before."""
        self._add(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | mode, data)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a device node; needs no privilege here, the guest's kernel makes it."""
        self._add(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def finish(self) -> bytes:
        """The archive."""
        self._add(_TRAILER, 0, b"")
        data = b"".join(self._parts)
        return data + bytes(-len(data) % 512)

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        encoded = name.encode() + b"\0"
        # magic, then: inode mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor
        # namesize check, each eight hexadecimal digits.
        fields = (self._entries, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        head = header + encoded
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
