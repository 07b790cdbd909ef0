# SPDX-License-Identifier: MIT
"""What the load generator asks for, and what a server has to answer: shared by both sides."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
FILL = b"x"
"""What a body of a scene is made of; the load generator fills its own the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One kind of load. Every answer is compared byte for byte."""

    name: str
    connections: int
    depth: int = 1
    """Requests that a connection sends at once, before it waits for their answers."""
    upload: int = 0
    """Bytes of a request's body."""
    download: int = 0
    """Bytes of an answer's body; 0 is the thirteen of `HELLO`."""
    tls: bool = False
    reconnect: bool = False
    """Whether each request has a connection of its own."""

    @property
    def request(self) -> bytes:
        """A request without its body."""
        if self.upload:
            return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % self.upload
        return REQUEST

    @property
    def answer(self) -> bytes:
        """An answer without what follows it in a download."""
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body) + self.hello

    @property
    def asgi_answer(self) -> bytes:
        """As `answer`, in the words of an ASGI server that adds no header of its own."""
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.body) + self.hello

    @property
    def hello(self) -> bytes:
        """The body of an answer that is no download."""
        return b"" if self.download else HELLO

    @property
    def body(self) -> bytes:
        """The whole body of an answer."""
        return FILL * self.download if self.download else HELLO

    @property
    def simple(self) -> bool:
        """Whether a request always arrives in one piece, alone."""
        return self.depth == 1 and not self.upload


HELLO = b"Hello, World!"
REQUEST = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n"
PLAIN = Scene(name="64 connections", connections=64)
SCENES = {
    scene.name: scene
    for scene in (
        Scene(name="1 connection", connections=1),
        PLAIN,
        Scene(name="1000 connections", connections=1000),
        Scene(name="pipelined 16", connections=64, depth=16),
        Scene(name="TLS", connections=64, tls=True),
        Scene(name="1 MiB down", connections=8, download=_MIB),
        Scene(name="1 MiB up", connections=8, upload=_MIB),
        Scene(name="short connections", connections=64, reconnect=True),
    )
}
