# SPDX-License-Identifier: MIT
"""A loop is made, the process forks, and the child runs it; so does the parent, afterwards.

Prints, as JSON, what each of them found.  The argument says what was done with the loop before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable

import ioxide
from tests.smoke.loops import EchoProtocol, left_open, say, talk
from tests.support import SMALL, TIMEOUT

ROUNDS = 10


class Used:
    """What was done to the loop before the fork, and what comes of it in each process."""

    def __init__(self, loop: ioxide.Loop) -> None:
        self.loop = loop
        self.posted: list[str] = []
        self.read: list[str] = []
        self.signals = 0
        self.out, self.into = os.pipe2(os.O_NONBLOCK)
        loop.add_reader(self.out, self._readable)
        loop.add_signal_handler(signal.SIGUSR1, self._signalled)
        loop.driver.post(self.posted.append, "yes")

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):  # another process was faster
            self.read.append(os.read(self.out, 1).decode())

    def _signalled(self) -> None:
        self.signals += 1

    def run(self) -> dict[str, str]:
        return self.loop.run_until_complete(self._run())

    async def _run(self) -> dict[str, str]:
        echoed = (await talk()).decode()
        for number in range(1, ROUNDS + 1):
            woken = self.loop.create_future()
            thread = threading.Thread(
                target=self.loop.call_soon_threadsafe, args=(woken.set_result, None)
            )
            thread.start()
            await asyncio.wait_for(woken, TIMEOUT)
            thread.join()
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(TIMEOUT):
                while self.signals < number or len(self.read) < number:
                    os.write(self.into, b"p")
                    await asyncio.sleep(0.001)
        return {
            "echoed": echoed,
            "reader": self.read[0],
            "signal": f"told {self.signals} times",
            "posted": self.posted[0],
        }


def refusal(call: Callable[[], object], words: str) -> str:
    try:
        return f"returned {call()!r}"
    except RuntimeError as error:
        return words if words in str(error) else str(error)


def main(case: str) -> None:
    loop = ioxide.new_event_loop(SMALL)
    used = Used(loop)
    client: socket.socket | None = None
    if case in ("has-run", "in-use"):
        loop.run_until_complete(talk())
    if case == "in-use":
        server, client = loop.run_until_complete(left_open())

    def child() -> object:
        if case == "closed":
            loop.close()
            return {"closed": loop.is_closed()}
        if case == "in-use":
            return {
                "run": refusal(loop.run_forever, "left there: connections: 1, listeners: 1"),
                "close": refusal(loop.close, "this ring belongs to the process that made it"),
            }
        return used.run()

    pids, outs = [], []
    for _ in range(2 if case == "at-once" else 1):
        out, into = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.write(into, json.dumps(child()).encode())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(into)
        pids.append(pid)
        outs.append(out)
    parent = used.run() if case == "at-once" else None
    children = [json.loads(os.read(out, 65536) or b"null") for out in outs]
    exits = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if client is not None:
        loop.run_until_complete(say(client, b"after"))  # nothing has happened to it
        client.close()
        loop.run_until_complete(EchoProtocol.made[0].lost)
        server.close()
    parent = parent or used.run()
    loop.close()
    print(json.dumps({"children": children, "parent": parent, "exits": exits}))


if __name__ == "__main__":
    main(sys.argv[1])
