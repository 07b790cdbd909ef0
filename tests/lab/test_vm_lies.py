# SPDX-License-Identifier: MIT
"""An agent that lies: whatever it says that cannot be true ends the guest with a reason."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.errors import GuestLost
from lab.vm import Output, Stream
from lab.vm.channel import Channel
from lab.vm.inguest.frames import encode, to_text
from lab.vm.link import Link

pytestmark = pytest.mark.lab

SOON = 5.0


class Liar:
    """The far end of a link, saying what a test wants."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.sent = 0

    def say(self, **message: Any) -> None:
        """Send one proper frame."""
        self.sent += 1
        self.socket.sendall(encode({"seq": self.sent, **message}))


@pytest.fixture
def ends() -> Iterator[tuple[Link, Liar]]:
    """A link and the liar at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Link(Channel(ours), GuestLost), Liar(theirs)


def hello(link: Link) -> None:
    """Take the first word."""
    link.hello(deadline=time.monotonic() + SOON, within_s=SOON)


def test_silence_at_the_start_is_told_with_its_length(ends: tuple[Link, Liar]) -> None:
    """An agent that never starts is lost after the time it was given."""
    link, _ = ends
    with pytest.raises(GuestLost, match=r"did not speak within 0\.1 s"):
        link.hello(deadline=time.monotonic() + 0.1, within_s=0.1)


def test_the_first_word_must_be_hello(ends: tuple[Link, Liar]) -> None:
    """Anything before hello is refused."""
    link, liar = ends
    liar.say(event="exited", process=1, status=0)
    with pytest.raises(GuestLost, match="first word was"):
        hello(link)


@pytest.mark.parametrize(
    ("lies", "complaint"),
    [
        ([{"re": 9}], "answered request 9, asked was 1"),
        ([{"re": None}], "answered request None"),
        ([{"event": "exited", "process": 7, "status": 0}], "a process nobody started"),
        ([{"event": "exited", "process": "1", "status": 0}], "a process nobody started"),
        ([{"event": "exited", "process": 1, "status": "0"}], "an event that is none"),
        ([{"event": "exited", "process": 1, "status": True}], "an event that is none"),
        ([{"event": "passed", "process": 1, "data": ""}], "an event that is none"),
        ([{"event": "stdout", "process": 1, "data": "!"}], "an event that is none"),
        ([{"event": "stdout", "process": 1}], "an event that is none"),
        ([{"event": "exited", "process": 1, "status": 0}] * 2, "process 1 after its end"),
        ([{"event": "control", "process": 1, "data": to_text(b"[]\n")}], "no JSON object"),
        ([{}], "a process nobody started"),
    ],
)
def test_a_lie_ends_the_guest(
    ends: tuple[Link, Liar], lies: list[dict[str, Any]], complaint: str
) -> None:
    """Each impossible message is refused by name, and every later call says the same."""
    link, liar = ends
    liar.say(event="hello")
    hello(link)
    link.open(1)
    for lie in lies:
        liar.say(**lie)
    with pytest.raises(GuestLost, match=complaint):
        link.call("ping", timeout_s=SOON)
    with pytest.raises(GuestLost, match=complaint):
        link.call("ping", timeout_s=SOON)


def test_a_repeated_frame_ends_the_guest(ends: tuple[Link, Liar]) -> None:
    """A frame sent twice is noticed by its number."""
    link, liar = ends
    liar.say(event="hello")
    hello(link)
    liar.socket.sendall(encode({"seq": 1, "re": 1}))
    with pytest.raises(GuestLost, match="a duplicate frame: number 1, expected 2"):
        link.call("ping", timeout_s=SOON)


def test_an_answer_that_never_comes_ends_the_guest(ends: tuple[Link, Liar]) -> None:
    """A request has an end in time."""
    link, liar = ends
    liar.say(event="hello")
    hello(link)
    with pytest.raises(GuestLost, match=r"did not answer mark within 0\.1 s"):
        link.call("mark", timeout_s=0.1, text="x")


def test_a_process_that_never_stops_talking_ends_the_guest(
    ends: tuple[Link, Liar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output nobody fetches is kept only so far; fetched output does not count."""
    monkeypatch.setattr("lab.vm.link._MOST_WAITING", 1000)
    link, liar = ends
    liar.say(event="hello")
    hello(link)
    inbox = link.open(1)
    for _ in range(20):
        liar.say(event="stdout", process=1, data=to_text(bytes(400)))
        assert Output(Stream.STDOUT, bytes(400)) == link.event(inbox, SOON)
    for _ in range(3):
        liar.say(event="stdout", process=1, data=to_text(bytes(400)))
    with pytest.raises(GuestLost, match="wrote 1200 bytes that nobody fetched"):
        link.call("ping", timeout_s=SOON)
