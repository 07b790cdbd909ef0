# SPDX-License-Identifier: MIT
"""What the lab promises of every guest, whatever its kernel."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host


@pytest.fixture
def own_root(request: pytest.FixtureRequest) -> bool:
    """Whether the guest's root is the lab's own image, and not this machine's files."""
    return str(request.config.getoption("lab_launcher")) == "qemu"


def test_kernel_is_the_one_that_was_booted(guest_host: Host) -> None:
    """It is of the release that was asked for, of this machine's kind, and was given this run's
    command line: a nonce, and that it ends when it oopses."""
    guest = guest_host.backend.guest

    assert guest.kernel.release == guest_host.sysctl("kernel.osrelease")
    words = guest_host.file("/proc/cmdline").content_string.split()
    assert {f"lab.nonce={guest.nonce}", "oops=panic", "panic=-1"} <= {*words}
    assert {*guest.wishes.cmdline} <= {*words}
    system = guest_host.system_info
    assert ("linux", os.uname().machine) == (system.type, system.arch)
    assert (guest.wishes.cpus or 1) == int(guest_host.check_output("nproc"))


def test_file_systems_are_mounted(guest_host: Host, own_root: bool) -> None:
    """The kernel's own file systems are where programs look for them. The root takes what a test
    writes, and the image behind it does not."""
    mounts = {one.path: one for one in guest_host.mount_point.get_mountpoints()}

    expected = {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "devtmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/sys/fs/cgroup": "cgroup2",
    }
    assert expected == {path: mounts[path].filesystem for path in expected}
    if own_root:
        assert ("overlay", "rw") == (mounts["/"].filesystem, mounts["/"].options[0])
        release = guest_host.backend.guest.kernel.release
        modules = mounts[guest_host.file(f"/lib/modules/{release}").linked_to]
        assert ("erofs", "ro") == (modules.filesystem, modules.options[0])
        disk = guest_host.block_device("/dev/vda")
        assert not disk.is_writable
        assert disk.size > 1 << 20
    for path in ("/tmp", "/dev/shm"):
        assert ("root", 0o1777) == (guest_host.file(path).user, guest_host.file(path).mode)


def test_loopback_is_up_and_alone(guest_host: Host, own_root: bool) -> None:
    """Tests can talk over IPv4 and IPv6, and nobody else talks to them."""
    lo = guest_host.interface("lo")

    assert {"127.0.0.1", "::1"} <= {*lo.addresses}
    assert {"LOOPBACK", "UP"} <= {*lo.link[0]["flags"]}
    assert "127.0.0.1" in guest_host.addr("localhost").ip_addresses
    if own_root:
        # A kernel makes devices of drivers that are built into it, as dummy0 with CONFIG_DUMMY=y.
        for name in {*guest_host.interface.names()} - {"lo"}:
            assert not guest_host.file(f"/sys/class/net/{name}/device").exists, "a network card"
            assert "UP" not in guest_host.interface(name).link[0]["flags"]


def test_nothing_is_left_of_earlier_commands(guest_host: Host, own_root: bool) -> None:
    """What a command leaves behind ends with it: the agent is the one child of the first process,
    to which every orphan would fall."""
    done = guest_host.run("(sleep 4711 </dev/null >/dev/null 2>&1 &) ; echo begun")

    assert "begun\n" == done.stdout
    assert [] == guest_host.process.filter(comm="sleep")
    if own_root:
        assert guest_host.process.get(ppid=1).args.endswith("/run/lab/inguest/start.py")
        assert "/run/lab/pid1" in guest_host.process.get(pid=1).args


def test_tree_is_there_byte_for_byte(guest_host: Host, pytestconfig: pytest.Config) -> None:
    """The guest has this very file, as root's."""
    from lab.remote.process import TREE  # a guest, which collects this file, has it not

    here = Path(__file__)
    there = guest_host.file(f"{TREE}/{here.relative_to(pytestconfig.rootpath).as_posix()}")

    assert hashlib.sha256(here.read_bytes()).hexdigest() == there.sha256sum
    assert ("root", 0) == (there.user, there.gid)


def test_clock_is_the_hosts(guest_host: Host) -> None:
    """Certificates and times of files are those of today."""
    before = time.time()
    there = int(guest_host.check_output("date +%s"))
    after = time.time()

    assert before - 30 < there < after + 30


def test_users_are_root_and_nobody(guest_host: Host) -> None:
    """A test is root, and has an ordinary user to become."""
    me, other = guest_host.user(), guest_host.user("nobody")

    assert ("root", 0, [0]) == (me.name, me.uid, me.gids)
    assert other.exists
    assert (65534, "nogroup") == (other.uid, other.group)
    assert guest_host.group("nogroup").exists
    assert not guest_host.user("nosuchuser").exists


@pytest.mark.slow
@pytest.mark.guest(sysctl={"net.core.somaxconn": 321}, cmdline="lab_wish=1", modules=["veth"])
def test_wishes_are_granted(guest_host: Host) -> None:
    """A sysctl, a word on the kernel's command line and a module that the test asks for."""
    assert 321 == guest_host.sysctl("net.core.somaxconn")
    assert guest_host.file("/proc/cmdline").contains("lab_wish=1")
    assert guest_host.file("/sys/module/veth").is_directory
