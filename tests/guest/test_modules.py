# SPDX-License-Identifier: MIT
"""pytest-testinfra's modules tell the truth of something that a test has made in its guest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host

LISTENER = """
import socket, time
open("/proc/self/comm", "w").write("lab-listener")
tcp = socket.create_server(("127.0.0.1", 5001))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 5002))
unix = socket.socket(socket.AF_UNIX)
unix.bind("/tmp/lab-listener")
unix.listen()
client = socket.create_connection(("127.0.0.1", 5001))
there, _ = tcp.accept()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def listener(guest_host: Host) -> Iterator[None]:
    """A process in the guest that stays for the test, with sockets of each kind."""
    from lab.vm import Exited, Output  # a guest, which collects this file, has it not

    guest = guest_host.backend.guest
    process = guest.spawn([sys.executable, "-I", "-S", "-c", LISTENER])
    said = process.receive(60 + 10 * guest.slowdown)
    assert isinstance(said, Output), said
    assert b"ready\n" == said.data
    yield
    process.kill()
    while not isinstance(process.receive(60), Exited):
        pass
    guest_host.run("rm /tmp/lab-listener")


@pytest.mark.usefixtures("listener")
def test_sockets_and_the_process_behind_them(guest_host: Host) -> None:
    """Who listens where, who is connected, and the process that has all that."""
    for spec in ("tcp://127.0.0.1:5001", "udp://127.0.0.1:5002", "unix:///tmp/lab-listener"):
        assert guest_host.socket(spec).is_listening, spec
    assert not guest_host.socket("tcp://127.0.0.1:5003").is_listening
    ((address, _port),) = guest_host.socket("tcp://127.0.0.1:5001").clients
    assert "127.0.0.1" == address
    process = guest_host.process.get(comm="lab-listener")
    assert ("root", "S") == (process.user, process.state[0])
    assert "time.sleep(600)" in process.args
    assert guest_host.file("/tmp/lab-listener").is_socket


def test_files(guest_host: Host) -> None:
    """Contents, mode, owner, size and target of what was written there."""
    guest_host.check_output(
        "mkdir /tmp/g && cd /tmp/g && printf 'caf\\303\\251\\n' >f && ln -s f l"
    )
    guest_host.check_output("chmod 640 /tmp/g/f && chown nobody:nogroup /tmp/g/f")
    try:
        file, link = guest_host.file("/tmp/g/f"), guest_host.file("/tmp/g/l")
        assert ("caf\u00e9\n", 6) == (file.content_string, file.size)
        assert (0o640, "nobody", "nogroup") == (file.mode, file.user, file.group)
        assert file.contains("^caf")
        assert not file.contains("tea")
        assert link.is_symlink
        assert "/tmp/g/f" == link.linked_to
        assert ["f", "l"] == guest_host.file("/tmp/g").listdir()
        assert abs(file.mtime.timestamp() - time.time()) < 60
    finally:
        guest_host.run("rm -r /tmp/g")
    assert not guest_host.file("/tmp/g").exists


def test_sysctl_mount_and_interface_that_a_test_makes(guest_host: Host) -> None:
    """What a command changes is what is told afterwards."""
    before = guest_host.sysctl("vm.swappiness")
    guest_host.check_output("sysctl -w vm.swappiness=%s", str(before + 1))
    assert before + 1 == guest_host.sysctl("vm.swappiness")
    guest_host.check_output("sysctl -w vm.swappiness=%s", str(before))

    assert not guest_host.mount_point("/mnt-lab").exists
    guest_host.check_output("mkdir /mnt-lab && mount -t tmpfs -o ro,nodev lab /mnt-lab")
    mount = guest_host.mount_point("/mnt-lab")
    assert ("lab", "tmpfs") == (mount.device, mount.filesystem)
    assert {"ro", "nodev"} <= {*mount.options}
    guest_host.check_output("umount /mnt-lab && rmdir /mnt-lab")

    guest_host.check_output("ip address add 192.0.2.1/32 dev lo")
    assert "192.0.2.1" in guest_host.interface("lo", "inet").addresses
    guest_host.check_output("ip address delete 192.0.2.1/32 dev lo")
    assert not guest_host.interface("lab0").exists
