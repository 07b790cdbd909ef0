# SPDX-License-Identifier: MIT
# Importing pathlib would cost a fifth of a second in an emulated guest.
# ruff: noqa: PTH103, PTH123, PTH208
"""The lab's agent in a guest: runs processes there and carries their words to the host.

It and the modules beside it use the standard library only, and come compiled in the initramfs, for
the Python that the root image has. It speaks in frames on a virtio-serial port of its own, one
thread, one poll loop. It proves nothing and decides nothing: every judgement is the host's.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time

from .children import Children
from .frames import CHUNK, Decoder, encode, to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:  # see frames.py
    from typing import Any

PORT = "lab.agent"
STRAY = "lab.stray"
PRINTED = "lab.printed"
"""Where a process writes what is to be on the host at once, by the device named in LAB_PRINTED."""
KMSG_RECORD = 16 << 10
"""More than a record of /dev/kmsg can be long (CONSOLE_EXT_LOG_MAX, 8 KiB in 6.1)."""
GZIP = b"\x1f\x8b"
"""What a file that is compressed so begins with (RFC 1952)."""
SPIN = 20_000
CALLS = 100


def spin(rounds: int) -> float:
    """Seconds of CPU this machine needs for a fixed piece of Python; host and guest compare."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        total = 0
        for number in range(rounds):
            total += number & 7
        best = min(best, time.thread_time() - start)
    return best


def calls(rounds: int) -> float:
    """Seconds of CPU that some system calls take, which allocate and free memory of the kernel's. A
    kernel that looks for bugs in itself is slow there and nowhere else."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        for _ in range(rounds):
            reading, writing = os.pipe()
            os.write(writing, b"x")
            os.read(reading, 1)
            os.close(reading)
            os.close(writing)
        best = min(best, time.thread_time() - start)
    return best


class Agent:
    """The loop between one port and any number of children."""

    def __init__(self, port: int, *, cgroups: str | None) -> None:
        self.port = port
        self.decoder = Decoder()
        self.sent = 0
        self.poll = select.poll()
        self.poll.register(port, select.POLLIN)
        self.children = Children(self.poll, self.send, cgroups=cgroups)
        self.do_spawn = self.children.spawn
        self.do_stdin = self.children.stdin
        self.do_window = self.children.window
        self.do_control = self.children.control
        self.do_kill = self.children.kill
        self.tar = self.kmsg = -1

    # -- talking to the host ---------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> None:
        """Write one frame; the port blocks while the host does not read, and that is wanted."""
        self.sent += 1
        view = memoryview(encode({"seq": self.sent, **message}))
        while view:
            view = view[os.write(self.port, view) :]

    def run(self) -> None:
        """Serve the host until it is gone."""
        while True:
            for fd, events in self.poll.poll(self.children.patience_ms()):
                if fd == self.port:
                    if not self._from_host():
                        return
                elif fd in self.children.owner:
                    self.children.ready(fd, events)
            self.children.bury()

    def _from_host(self) -> bool:
        data = os.read(self.port, 1 << 16)
        if not data:  # virtio-serial reads nothing once the host has closed its side
            return False
        for message in self.decoder.feed(data):
            answer: dict[str, Any] = {"re": message.get("id")}
            try:
                operation = getattr(self, "do_" + str(message.get("op")), None)
                if operation is None:
                    raise ValueError(f"unknown operation {message.get('op')!r}")
                answer.update(operation(message) or {})
            except (OSError, ValueError, KeyError, TypeError) as error:
                answer["error"] = f"{type(error).__name__}: {error}"
            self.send(answer)
        return True

    # -- what the host may ask -------------------------------------------------------------------

    def do_start(self, message: dict[str, Any]) -> dict[str, Any]:
        """Set the clock, open the console's ear, and tell how fast this machine is."""
        if message.get("own_machine"):
            time.clock_settime(time.CLOCK_REALTIME, float(message["time"]))
            # From here on informational messages reach the serial console too (a segfault's line
            # is one); during boot they would cost time on an emulated serial port.
            with open("/proc/sys/kernel/printk", "w") as printk:
                printk.write("7")
        return {"spin": spin(SPIN), "calls": calls(CALLS)}

    def do_ping(self, message: dict[str, Any]) -> None:
        """Answer."""

    def do_kernel_log(self, message: dict[str, Any]) -> dict[str, Any]:
        """The records of the kernel log that were not yet told; "more" if there are others. Behind
        the last of them "mark" is written into the log, unless it is empty."""
        if self.kmsg < 0:
            self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        data = bytearray()
        more = True
        while more and len(data) < CHUNK:
            try:
                data += os.read(self.kmsg, KMSG_RECORD)
            except BlockingIOError:
                more = False
            except BrokenPipeError:
                pass  # records were overwritten before we came; the host misses their numbers
        if message["mark"] and not more:
            # Priority 5 is above the console level set by do_start, so it is there, too.
            with open("/dev/kmsg", "wb", buffering=0) as kmsg:
                kmsg.write(b"<5>" + str(message["mark"]).encode() + b"\n")
        return {"data": to_text(bytes(data)), "more": more}

    def do_tar(self, message: dict[str, Any]) -> None:
        """Take a piece of a tar; with the last one, unpack all of it."""
        if message["first"]:
            self._forget_tar()
            self.tar = os.memfd_create("tar")
        view = memoryview(to_bytes(message["data"]))
        while view:
            view = view[os.write(self.tar, view) :]
        if not message["last"]:
            return
        try:
            os.makedirs(message["directory"], exist_ok=True)
            self._unpack(message["directory"])
        finally:
            self._forget_tar()

    def _unpack(self, directory: str) -> None:
        # Python's tarfile takes several times as long, seconds under emulation.
        said = os.memfd_create("said")
        # busybox's (1.35) has to be told.
        compressed = ["-z"] if os.pread(self.tar, 2, 0) == GZIP else []
        try:
            pid = os.posix_spawnp(
                "tar",
                ["tar", "-x", *compressed, "-f", "/proc/self/fd/0", "-C", directory],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self.tar, 0),
                    (os.POSIX_SPAWN_DUP2, said, 1),
                    (os.POSIX_SPAWN_DUP2, said, 2),
                ],
            )
            _, raw = os.waitpid(pid, 0)
            if status := os.waitstatus_to_exitcode(raw):
                words = os.pread(said, 2000, 0).decode(errors="replace").strip()
                raise ValueError(f"tar ended with status {status}: {words}")
        finally:
            os.close(said)

    def _forget_tar(self) -> None:
        if self.tar >= 0:
            os.close(self.tar)
            self.tar = -1


def port_of(name: str) -> str:
    """The device of the virtio-serial port called `name`; there is no udev to link it by name."""
    directory = "/sys/class/virtio-ports"
    for entry in os.listdir(directory):
        with open(f"{directory}/{entry}/name") as file:
            if file.read().strip() == name:
                return f"/dev/{entry}"
    raise SystemExit(f"lab: no virtio-serial port is called {name}")


def open_port(name: str) -> int:
    """Open the virtio-serial port called `name`."""
    return os.open(port_of(name), os.O_RDWR)


def command_line() -> dict[str, str]:
    """The lab's own words on the kernel's command line."""
    with open("/proc/cmdline") as file:
        words = file.read().split()
    return dict(word[4:].split("=", 1) for word in words if word.startswith("lab.") and "=" in word)


def main() -> None:
    """Serve the host on the guest's port, or for tests on the descriptor named by --fd."""
    if sys.argv[1:2] == ["--fd"]:
        port, cgroups, nonce = int(sys.argv[2]), None, sys.argv[3]
        os.set_inheritable(port, False)
    else:
        stray = open_port(STRAY)
        os.dup2(stray, 1)
        os.dup2(stray, 2)
        os.environ["LAB_PRINTED"] = port_of(PRINTED)
        port, cgroups = open_port(PORT), "/sys/fs/cgroup"
        nonce = command_line().get("nonce", "")
        # Writing to a full port must wait, and the agent must be the last to go when memory is.
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("-1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent = Agent(port, cgroups=cgroups)
    release = os.uname().release
    hello: dict[str, Any] = {"event": "hello", "nonce": nonce, "release": release}
    hello["python"] = sys.version
    # Left as the kernel gives it: what a ring may lock is part of what is tested.
    hello["memlock"] = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    agent.send(hello)
    try:
        with contextlib.suppress(ConnectionError):  # a host that died does not say goodbye
            agent.run()
        agent.children.end()
    except BaseException as error:
        # The port may be what is broken: the console is the other way out.
        if cgroups is not None:
            with open("/dev/kmsg", "w") as kmsg:
                kmsg.write(f"<3>lab: agent: {type(error).__name__}: {error}")
        raise
