# SPDX-License-Identifier: MIT
"""Every way to move bytes but the shared one, and the proof that a server took it.

Each way says which counters tell that it was taken; `served()` looks at them, and at everything
that has to be back, when the server has stopped.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import ioxide
from ioxide import WriteOverflow
from tests.faces import FACES, Face, Handler, Served, Stream, serve
from tests.support import (
    Whole,
    on_reactor,
    pieces,
    read_exactly,
    read_to_end,
    sending,
    until,
    wait_unread,
)

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

SLAB = 4096
INCREMENTAL = ioxide.IncrementalConfig(max_connections=8, recv_slots=16, recv_buffer_size=1024)


@dataclass(frozen=True)
class Way:
    """A configuration, and the counters that are above 0 only where it was what moved the bytes."""

    changes: dict[str, Any]
    received: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()

    def __or__(self, other: Way) -> Way:
        return Way(
            self.changes | other.changes, self.received + other.received, self.sent + other.sent
        )


BUNDLE = Way({"recv_bundle": True, "recv_buffer_size": 1024}, received=("recv_bundles",))
INC = Way({"incremental": INCREMENTAL}, received=("recv_appends",))
PLAIN = Way({})
ZC = Way({"zero_copy_send": True}, sent=("sends_zc", "zc_notifs"))
SEGMENTED = Way(
    {"write_overflow": WriteOverflow.SEGMENTED, "write_slab_size": SLAB}, sent=("sends_vectored",)
)

_bundle, _inc, _zc = (pytest.mark.needs(name) for name in ("BUNDLE", "INC", "SEND_ZC"))

RECEIVES = [
    pytest.param(BUNDLE, id="bundle", marks=_bundle),
    pytest.param(INC, id="incremental", marks=_inc),
]
# Both with four buffers of 64 bytes, so that a receive of more finds none left.
_FEW = ioxide.IncrementalConfig(max_connections=8, recv_slots=4, recv_buffer_size=64)
STARVING = [
    pytest.param(
        BUNDLE | Way({"recv_slots": 4, "recv_buffer_size": 64}), id="bundle", marks=_bundle
    ),
    pytest.param(INC | Way({"incremental": _FEW}), id="incremental", marks=_inc),
]
SHARING = [
    pytest.param({}, id="shared"),
    pytest.param({"recv_bundle": True}, id="bundle", marks=_bundle),
]
SENDS = [
    pytest.param(ZC, id="zc", marks=_zc),
    pytest.param(SEGMENTED, id="segmented"),
    pytest.param(ZC | SEGMENTED, id="zc-segmented", marks=_zc),
]
WRITES = [pytest.param(PLAIN, id="plain"), *SENDS]
WAYS = [
    *RECEIVES,
    *SENDS,
    pytest.param(BUNDLE | ZC | SEGMENTED, id="bundle-zc-segmented", marks=[_bundle, _zc]),
    pytest.param(INC | ZC | SEGMENTED, id="incremental-zc-segmented", marks=[_inc, _zc]),
]

by_face = pytest.mark.parametrize("face", FACES)
by_receive = pytest.mark.parametrize("way", RECEIVES)
by_way = pytest.mark.parametrize("way", WAYS)


def _through_both_faces(ways: Sequence[ParameterSet]) -> pytest.MarkDecorator:
    """Every way through both faces; in a short run through either, in turn, so that every way, both
    faces, and what the combined ways are made of in both faces are taken."""
    return pytest.mark.parametrize(
        ("way", "face"),
        [
            pytest.param(
                *way.values,
                face,
                id=f"{way.id}-{face}",
                marks=[*way.marks, *([] if turn % len(FACES) == number else [pytest.mark.slow])],
            )
            for turn, way in enumerate(ways)
            for number, face in enumerate(FACES)
        ],
    )


by_receive_and_face = _through_both_faces(RECEIVES)
by_write = pytest.mark.parametrize("way", WRITES)
by_write_and_face = _through_both_faces(WRITES)
by_send_and_face = _through_both_faces(SENDS)
by_way_and_face = _through_both_faces(WAYS)


def all_back(stats: ioxide.Counters, config: dict[str, Any]) -> None:
    """Connections, buffers, memory that the kernel reads and group ids: nothing is out."""
    assert (0, 0) == (stats.connections_now, stats.accepts + stats.adoptions - stats.closes)
    assert 0 == stats.buffers_held_now, "receive buffers that did not come back"
    assert stats.sends_zc == stats.zc_notifs, "sends whose memory the kernel still has"
    assert 0 == stats.held_bytes_now, "written bytes that are still kept alive"
    if own := config.get("incremental"):
        assert own.max_connections == stats.groups_free_now, "group ids that did not come back"


@contextmanager
def served(face: Face, way: Way, handler: Handler, **changes: object) -> Iterator[Served]:
    """`handler` on a server that moves bytes that way, proves it, and leaves nothing behind."""
    config = {**way.changes, **changes}
    with serve(face, handler, **config) as server:
        yield server
    stats = server.stats()
    for counter in way.received + way.sent:
        assert getattr(stats, counter) > 0, f"{counter}: another way was taken"
    all_back(stats, config)


class Streams:
    """A handler's streams in the order in which they come; `of()` wraps the handler."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._clients: list[socket.socket] = []

    def of(self, handler: Handler) -> Handler:
        async def noting(stream: Stream) -> None:
            self._streams.append(stream)
            await handler(stream)

        return noting

    def echoed(
        self, server: Served, client: socket.socket, rng: random.Random, first: bytes, sent: bytes
    ) -> ioxide.Counters:
        """An echo returns `first`, delivered whole and twice, and `sent`, in random pieces.

        The counters when the connection has ended, with every byte in them.
        """
        for _ in range(2):
            self.deliver(server, client, first)
            assert Whole(first) == Whole(read_exactly(client, len(first)))
        with sending(client, pieces(rng, sent)):
            assert Whole(sent) == Whole(read_to_end(client))
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        stats, total = server.stats(), 2 * len(first) + len(sent)
        assert (total, total) == (stats.bytes_received, stats.bytes_sent)
        return stats

    def deliver(self, server: Served, client: socket.socket, data: bytes) -> None:
        """`data` to the stream of `client`, whose reactor finds all of it waiting at once.

        Of several clients each has to come here before the next one connects.
        """
        if client not in self._clients:
            self._clients.append(client)
        number = self._clients.index(client)
        until(lambda: len(self._streams) > number, "the handler's start")

        def block() -> None:
            client.sendall(data)
            wait_unread(self._streams[number].fileno(), len(data))

        on_reactor(server.reactors[0], block)
