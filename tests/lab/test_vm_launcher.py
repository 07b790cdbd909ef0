# SPDX-License-Identifier: MIT
"""A launcher is what provides a stream, a console and a process; the rest is optional."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.errors import GuestLost, UsageError
from lab.kernels import Kernel, KernelFiles
from lab.vm import LAUNCHERS, Accel, AccelKind, Machine, devices, launcher_named, provide, qemu
from lab.vm.console import Console
from lab.vm.inguest.frames import Decoder, encode
from lab.vm.introduction import introduced
from lab.vm.machine import ByteStream
from lab.wishes import Wishes

pytestmark = pytest.mark.lab

KERNEL = Kernel("9.9", "9.9.1", "9.9.1-1", "9.9.1-test", "fake", locked=True, verified_by="us")
ACCEL = Accel(AccelKind.TCG, "none", "none", "for a test")


class Line:
    """No socket: nothing but what `ByteStream` has."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno, self.setblocking = sock.fileno, sock.setblocking
        self.send: Callable[[memoryview], int] = sock.send
        self.recv: Callable[[int], bytes] = sock.recv


def answer(line: socket.socket, words: Sequence[str]) -> None:
    """What an agent says until nobody asks any more."""
    nonce = dict(word.split("=", 1) for word in words)["lab.nonce"]
    decoder, sent = Decoder(), 0

    def say(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += 1
        line.sendall(encode({"seq": sent, **message}))

    say({"event": "hello", "nonce": nonce, "release": KERNEL.release, "memlock": 0})
    while data := line.recv(1 << 16):
        for message in decoder.feed(data):
            say({"re": message["id"], "spin": 0.001, "calls": 0.001})


@contextmanager
def machine(directory: Path, words: Sequence[str], *, command: Sequence[str]) -> Iterator[Machine]:
    """A machine of neither QMP nor virtio-serial, that nobody can ask for its processors."""
    ours, theirs = socket.socketpair()
    talk = threading.Thread(target=answer, args=(theirs, words), daemon=True)
    with ours, theirs, qemu.running(command, log=directory / "words") as process:
        if command[0] == "sleep":
            talk.start()
        stream: ByteStream = Line(ours)
        yield Machine(process, Console(directory / "console.log"), directory / "stray.log", stream)
        ours.shutdown(socket.SHUT_RDWR)
        if command[0] == "sleep":
            talk.join(10)


def files(directory: Path) -> KernelFiles:
    """Of a kernel with one module and one that is built in."""
    (directory / "modules.dep").write_text("kernel/net/veth.ko.xz: kernel/x.ko.xz\n")
    (directory / "modules.builtin").write_text("kernel/drivers/virtio-pci.ko\n")
    return KernelFiles(KERNEL, *[directory] * 4)


def test_a_machine_without_a_monitor_becomes_a_guest(tmp_path: Path) -> None:
    """A stream that is no socket, a process and a console are enough to talk to an agent."""
    with introduced(
        files(tmp_path),
        lambda words: machine(tmp_path, words, command=("sleep", "60")),
        accel=ACCEL,
        timeout_s=20,
    ) as guest:
        guest.ping()
        assert guest.uname == KERNEL.release
        assert guest.deaths == ()


def test_a_silent_machine_without_a_monitor_is_lost_in_time(tmp_path: Path) -> None:
    """Where nobody can tell whether it hangs there is the deadline, and no file about processors;
    a machine that ended is told by its process."""
    with pytest.raises(GuestLost, match=r"^the agent did not speak within 1\.5 s$"):
        with introduced(
            files(tmp_path),
            lambda words: machine(tmp_path, words, command=("tail", "-f", "/dev/null")),
            accel=ACCEL,
            timeout_s=1.5,
        ):
            pass
    with pytest.raises(GuestLost, match=r"QEMU ended with status 3"):
        with introduced(
            files(tmp_path),
            lambda words: machine(tmp_path, words, command=("sh", "-c", "exit 3")),
            accel=ACCEL,
            timeout_s=20,
        ):
            pass
    assert not list(tmp_path.glob("*state*"))


def test_a_launcher_that_there_is_not_is_refused() -> None:
    """By name, with the names there are."""
    assert [launcher_named(name).name for name in LAUNCHERS] == ["qemu", "vng"]
    with pytest.raises(UsageError) as caught:
        launcher_named("firecracker")
    assert str(caught.value) == "there is no launcher 'firecracker' (one of qemu, vng)"


def test_what_a_kernel_or_qemu_has_not_is_refused_before_it_boots(tmp_path: Path) -> None:
    """A module of another kernel and a device of nobody's are named."""
    provide.check(files(tmp_path), Wishes(modules=("veth", "virtio_pci", "virtio-pci")))
    with pytest.raises(UsageError, match=r"9\.9\.1-test has no module nonsense, neither built in"):
        provide.check(files(tmp_path), Wishes(modules=("veth", "nonsense")))

    pair, random = devices.wished(["network-pair", "virtio-rng-pci,max-bytes=1"])
    assert "hubport" in " ".join(pair.arguments())
    assert random.arguments() == ("-device", "virtio-rng-pci,max-bytes=1")
    with pytest.raises(UsageError, match=r"^there is no device 'nonsense' \(network-pair, or what"):
        devices.wished(["nonsense,x=1"])
