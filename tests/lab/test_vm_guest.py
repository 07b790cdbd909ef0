# SPDX-License-Identifier: MIT
"""Real guests: a Debian 6.12 boots, proves who it is, does what it is told and dies in words."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lab import packing
from lab.errors import GuestLost
from lab.kernels import KernelFiles, obtain, resolve
from lab.rules import dmesg
from lab.vm import Accel, Guest, boot, build_rootfs, choose_accel
from tests.lab.suite_support import COMPLAIN

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

SOON = 60.0

NETLINK_VETH = """
import os, socket, struct
def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
link = struct.pack("BBHiII", 0, 0, 0, 0, 0, 0)
peer = attribute(1, link + attribute(3, b"right\\0"))
info = attribute(18, attribute(1, b"veth\\0") + attribute(2, peer))
body = link + attribute(3, b"left\\0") + info
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
    netlink.send(struct.pack("IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
    print(struct.unpack_from("i", netlink.recv(4096), 16)[0], sorted(os.listdir("/sys/class/net")))
"""


@pytest.fixture(scope="module")
def files() -> KernelFiles:
    """The locked 6.12."""
    return obtain(resolve("6.12"))


@pytest.fixture(scope="module")
def accel(files: KernelFiles) -> Accel:
    """What runs it here."""
    return choose_accel(files)


@pytest.fixture(scope="module")
def rootfs() -> Path:
    """This Python as an image."""
    return build_rootfs()


@pytest.fixture(scope="module")
def guest(
    files: KernelFiles, accel: Accel, rootfs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """One guest for every test that does it no harm."""
    results = tmp_path_factory.mktemp("results")
    with boot(files, rootfs=rootfs, accel=accel, results=results) as booted:
        yield booted


def another(
    files: KernelFiles, accel: Accel, rootfs: Path, results: Path, **options: Any
) -> AbstractContextManager[Guest]:
    """A guest of a test's own."""
    return boot(files, rootfs=rootfs, accel=accel, results=results, **options)


def test_it_is_the_kernel_and_the_run_that_were_meant(guest: Guest, files: KernelFiles) -> None:
    """Release and nonce inside are those of the host's own records."""
    done = guest.run(["cat", "/proc/sys/kernel/osrelease", "/proc/cmdline"], timeout_s=SOON)
    release, cmdline = done.stdout.decode().splitlines()
    assert release == guest.uname == files.kernel.release == guest.kernel.release
    assert f"lab.nonce={guest.nonce}" in cmdline.split()
    assert 32 == len(guest.nonce)
    limit = guest.run(["sh", "-c", "ulimit -l"], timeout_s=SOON).stdout.decode().strip()
    assert str(guest.memlock // 1024) == limit
    assert guest.boot_seconds > 0
    assert guest.slowdown > 0


def test_its_python_is_this_python_with_these_packages(guest: Guest) -> None:
    """The same interpreter path, version and environment answer as on the host."""
    code = "import sys, pytest, cffi; print(sys.version, sys.prefix, pytest.__file__)"
    done = guest.run([sys.executable, "-c", code], timeout_s=SOON)
    assert b"" == done.stderr
    assert f"{sys.version} {sys.prefix} {pytest.__file__}" == done.stdout.decode().strip()


def test_its_liburing_loads(guest: Guest) -> None:
    """The library a pushed extension needs is in the image."""
    code = "import ctypes; ctypes.CDLL('liburing.so.2').io_uring_get_probe; print('there')"
    assert b"there\n" == guest.run([sys.executable, "-c", code], timeout_s=SOON).stdout


def test_its_world_is_complete(guest: Guest) -> None:
    """Loopback, /tmp, /dev/shm, ptys, cgroups and names are there; the clock is the host's."""
    code = (
        "import os, pwd, socket, tempfile, time\n"
        "socket.create_server(('localhost', 0)).close()\n"
        "socket.create_server(('::1', 0), family=socket.AF_INET6).close()\n"
        "assert socket.getprotobyname('tcp') == 6\n"
        "assert pwd.getpwuid(0).pw_name == 'root'\n"
        "for place in ('/tmp', '/dev/shm', '/var/tmp'): tempfile.TemporaryFile(dir=place).close()\n"
        "os.close(os.openpty()[0])\n"
        "open('/dev/stdin').close()\n"
        "assert os.path.exists('/sys/fs/cgroup/cgroup.controllers')\n"
        f"assert 0 <= time.time() - {time.time()} < {SOON}\n"
    )
    done = guest.run([sys.executable, "-c", code], timeout_s=SOON)
    assert (0, b"") == (done.status, done.stderr)


def test_a_veth_pair_can_be_made_without_loading_anything(guest: Guest) -> None:
    """The kernel finds the module by itself, and says nothing about it."""
    done = guest.run([sys.executable, "-c", NETLINK_VETH], timeout_s=SOON)
    assert "0 ['left', 'lo', 'right']\n" == done.stdout.decode()
    assert 0 == guest.run(["/sbin/modprobe", "virtio_net"], timeout_s=SOON).status
    assert b"Invalid ELF header" not in guest.console_log()


def test_log_is_read_whole_and_once(guest: Guest) -> None:
    """Forty quick lines all arrive, in order, each once; a mark stands behind what was read, and
    what a process wrote is told from the kernel's own words."""
    before = guest.read_kernel_log()
    assert [] == [*before.gaps]
    script = "for n in $(seq 40); do echo '<0>line'$n'.' >/dev/kmsg; done; rmdir /none"
    guest.run(["sh", "-c", script], timeout_s=SOON)
    piece = guest.read_kernel_log("behind\nthe lines")
    lines = [record for record in piece.records if record.text.startswith("line")]
    assert [f"line{number}." for number in range(1, 41)] == [record.text for record in lines]
    assert not any(record.from_kernel for record in lines)
    assert [] == [*piece.gaps]
    (mark,) = guest.read_kernel_log().records
    assert "behind the lines" == mark.text
    assert not mark.from_kernel


def test_log_begins_with_the_first_record_of_the_boot(
    files: KernelFiles, accel: Accel, rootfs: Path, tmp_path: Path
) -> None:
    """Nothing of the boot is missed, and none of it is a complaint. What overflows the kernel's
    buffer is a gap."""
    with another(files, accel, rootfs, tmp_path) as fresh:
        piece = fresh.read_kernel_log()
        assert 0 == piece.records[0].number
        assert "Linux version" in piece.records[0].text
        assert all(record.from_kernel for record in piece.records)
        assert [] == [*piece.gaps]
        assert [] == dmesg.scan_records(piece.records, fresh.kernel)
        flood = "with open('/dev/kmsg', 'w', buffering=1) as f:\n"
        flood += "    for n in range(70000): print('x' * 60, file=f)"
        quiet = "echo 1 >/proc/sys/kernel/printk; exec "
        fresh.run(["sh", "-c", f'{quiet}"$@"', "sh", sys.executable, "-c", flood], timeout_s=600)
        (gap,) = fresh.read_kernel_log().gaps
        assert gap.first == piece.records[-1].number + 1


def test_what_the_kernel_says_about_a_crash_is_in_the_log(guest: Guest) -> None:
    """A segmentation fault in the guest is a line in the log, and a complaint of the kernel is
    found there."""
    guest.read_kernel_log()
    code = "import ctypes; ctypes.string_at(0)"
    done = guest.run([sys.executable, "-S", "-c", code], timeout_s=SOON)
    assert -11 == done.status
    records = guest.read_kernel_log().records
    assert "segfault at 0" in "".join(record.text for record in records)
    assert [] == dmesg.scan_records(records, guest.kernel)
    guest.run([sys.executable, "-c", f"{COMPLAIN}\ncomplain()"], timeout_s=SOON)
    (splat,) = dmesg.scan_records(guest.read_kernel_log().records, guest.kernel)
    assert "Out of memory: Killed process" in splat.line


def test_nothing_of_a_killed_command_is_left(guest: Guest) -> None:
    """A child that made a session of its own dies with the command that started it."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.execvp('sleep', ['sleep', '4242'])\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(TimeoutError):
        guest.run([sys.executable, "-S", "-c", code], timeout_s=5.0)
    assert b"4242" not in guest.run(["ps"], timeout_s=SOON).stdout


def test_a_test_cannot_write_into_the_image(guest: Guest, rootfs: Path) -> None:
    """What a guest writes stays in its memory."""
    before = rootfs.stat().st_mtime_ns
    marker = Path(sys.prefix) / "written-in-a-guest"
    assert 0 == guest.run(["touch", str(marker)], timeout_s=SOON).status
    assert not marker.exists()
    assert rootfs.stat().st_mtime_ns == before


def test_two_guests_do_not_disturb_each_other(
    guest: Guest, files: KernelFiles, accel: Accel, rootfs: Path, tmp_path: Path
) -> None:
    """A second guest boots beside the first; each answers for itself, logs do not mix."""
    with another(files, accel, rootfs, tmp_path, cpus=2) as second:
        for one in (guest, second):
            done = one.run(["cat", "/proc/cmdline"], timeout_s=SOON)
            assert f"lab.nonce={one.nonce}" in done.stdout.decode()
            one.read_kernel_log(f"mark of {one.nonce}")
            assert f"mark of {one.nonce}" in one.read_kernel_log().records[-1].text
        assert guest.nonce != second.nonce
        assert guest.nonce.encode() not in second.console_log()
        count = ["sh", "-c", "grep -c ^processor /proc/cpuinfo"]
        assert b"2\n" == second.run(count, timeout_s=SOON).stdout
    assert 0 == guest.run(["true"], timeout_s=SOON).status


def test_a_panic_is_told_from_its_console(
    files: KernelFiles, accel: Accel, rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that panics is lost at once, with the kernel's reason, and leaves nothing behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    results = tmp_path / "results"
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with another(files, accel, rootfs, results) as doomed:
        with pytest.raises(GuestLost, match="sysrq triggered crash") as caught:
            doomed.run(["sh", "-c", "echo c >/proc/sysrq-trigger"], timeout_s=SOON)
        assert "Call Trace" in caught.value.console_tail or "RIP" in caught.value.console_tail
        with pytest.raises(GuestLost, match="sysrq triggered crash"):
            doomed.run(["true"], timeout_s=SOON)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert [] == list(temporary.iterdir())
    assert b"sysrq triggered crash" in (results / "console.log").read_bytes()
    logs = {"console.log", "printed.log", "qemu.log", "stray.log"}
    assert logs == {path.name for path in results.iterdir()}


def test_a_guest_that_switches_off_is_lost(
    files: KernelFiles, accel: Accel, rootfs: Path, tmp_path: Path
) -> None:
    """A guest that ends by itself says so, and so does one whose agent is killed."""
    with another(files, accel, rootfs, tmp_path) as leaving:
        with pytest.raises(GuestLost, match="the guest switched off or restarted"):
            leaving.run(["reboot", "-f"], timeout_s=SOON)
    with another(files, accel, rootfs, tmp_path) as headless:
        with pytest.raises(GuestLost, match="the agent ended with status 137"):
            headless.run(["sh", "-c", "kill -9 $(pidof python3 python3.11) $PPID"], timeout_s=SOON)
    assert (tmp_path / "console-2.log").exists()


def test_a_guest_without_a_host_switches_off(
    files: KernelFiles, accel: Accel, rootfs: Path, tmp_path: Path
) -> None:
    """Should QEMU ever outlive its runner, the agent ends the guest when its port is closed."""
    with another(files, accel, rootfs, tmp_path) as left:
        channel = left._link._channel
        assert channel._watch is not None
        poll = select.poll()
        poll.register(channel._watch, select.POLLIN)
        assert isinstance(channel._stream, socket.socket)
        channel._stream.shutdown(socket.SHUT_RDWR)
        assert poll.poll(SOON * 1000) != []
    assert b"lab: the agent ended with status 0" in (tmp_path / "console.log").read_bytes()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"timeout_s": 0.2}, r"did not speak within 0\.2 s"),
        ({"extra_cmdline": ("lab.nonce=forged",)}, "the agent names the nonce 'forged'"),
        ({"extra_cmdline": ("rdinit=/lab/modules",)}, "Kernel panic - not syncing: .*init"),
        ({"memory_mib": 48}, "the guest switched off or restarted"),
    ],
    ids=["too-slow", "forged-nonce", "no-init", "no-memory"],
)
def test_a_guest_that_does_not_come_up_says_why(
    files: KernelFiles,
    accel: Accel,
    rootfs: Path,
    tmp_path: Path,
    options: dict[str, Any],
    complaint: str,
) -> None:
    """No guest is handed out that is late, another one, or dead."""
    with pytest.raises(GuestLost, match=complaint):
        with another(files, accel, rootfs, tmp_path, **options):
            pytest.fail("a guest was handed out")
    if "timeout_s" in options:
        assert "status:" in (tmp_path / "console-state.txt").read_text()


@pytest.mark.parametrize("series", ["6.1", "6.18", "7.3"])
def test_the_other_series_boot_the_same_way(series: str, rootfs: Path, tmp_path: Path) -> None:
    """Modules of 6.1 and the split packages of 7.3 make no difference to who boots them."""
    files = obtain(resolve(series))
    with another(files, choose_accel(files), rootfs, tmp_path) as guest:
        assert guest.kernel.series == series
        assert f"{guest.uname}\n" == guest.run(["uname", "-r"], timeout_s=SOON).stdout.decode()
        done = guest.run([sys.executable, "-c", NETLINK_VETH], timeout_s=SOON)
        assert "0 ['left', 'lo', 'right']\n" == done.stdout.decode()


def test_a_module_the_kernels_build_did_not_sign_is_not_loaded(
    files: KernelFiles, guest: Guest
) -> None:
    """Some releases have their modules vouched for by nothing but the key inside their kernel: one
    changed byte, and it refuses."""
    (packed,) = files.modules.rglob("dummy.ko*")
    module = packing.decompress_module(packed)
    changed = bytearray(module)
    place = module.index(b"description=")
    changed[place + len(b"description=")] ^= 1
    script = "cat >/tmp/dummy.ko && insmod /tmp/dummy.ko && rmmod dummy"
    bad = guest.run(["sh", "-c", script], timeout_s=SOON, input=bytes(changed))
    assert 0 != bad.status
    assert b"key" in bad.stderr.lower() or b"required" in bad.stderr.lower()
    good = guest.run(["sh", "-c", script], timeout_s=SOON, input=module)
    assert 0 == good.status, good.stderr
