# SPDX-License-Identifier: MIT
"""``python many_senders.py PORT COUNT SEED``: COUNT connections that send 1 MiB each, in pieces.

It opens all of them, says "ready" and waits for a line; then it sends on whichever is writable,
pieces of 1 byte to 64 KiB, each size of bits as likely as the others; each connection is answered
with the SHA-256 of what arrived.  The last line on standard output is how many digests were right.
"""

from __future__ import annotations

import hashlib
import random
import selectors
import socket
import sys

MIB = 1 << 20


class Sender:
    """One connection: what it has yet to send, and the digest that it waits for."""

    def __init__(self, sock: socket.socket, data: memoryview, draw: random.Random) -> None:
        self.sock, self.left, self.draw = sock, data, draw
        self.expected = hashlib.sha256(data).digest()
        self.got = b""

    def send(self) -> bool:
        """Send a few pieces; False when there are none left."""
        for _ in range(8):  # then it is the others' turn
            if not self.left:
                self.sock.shutdown(socket.SHUT_WR)
                return False
            size = min(65536, self.draw.randrange(1, 1 << self.draw.randint(1, 17)))
            try:
                self.left = self.left[self.sock.send(self.left[:size]) :]
            except BlockingIOError:
                break
        return True


def main() -> int:
    port, count, seed = map(int, sys.argv[1:])
    draw = random.Random(seed)
    pool = memoryview(draw.randbytes(MIB + count))  # each connection sends another part of it
    poller = selectors.DefaultSelector()
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sender = Sender(sock, pool[number : number + MIB], draw)
        poller.register(sock, selectors.EVENT_WRITE, sender)
    print("ready", flush=True)
    sys.stdin.readline()
    right = 0
    while poller.get_map():
        events = poller.select(60)
        if not events:
            break  # somebody was forgotten: what is missing is told by the count
        for key, mask in events:
            sender = key.data
            if mask & selectors.EVENT_WRITE:
                if not sender.send():
                    poller.modify(sender.sock, selectors.EVENT_READ, sender)
                continue
            part = sender.sock.recv(4096)
            sender.got += part
            if not part:
                right += sender.got == sender.expected
                poller.unregister(sender.sock)
                sender.sock.close()
    print(right)
    return 0


if __name__ == "__main__":
    sys.exit(main())
