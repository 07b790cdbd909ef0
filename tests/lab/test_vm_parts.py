# SPDX-License-Identifier: MIT
"""The small parts of a guest: archive, console, devices, accelerator, root image."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import arch, tools
from lab.errors import LabError, UsageError
from lab.kernels import Kernel, KernelFiles
from lab.vm import AccelKind, choose_accel, direct, emulator, qemu
from lab.vm.accel import FIRST_LINE_S
from lab.vm.console import Console
from lab.vm.devices import Disk, FilePort, SerialConsole
from lab.vm.entry import usual
from lab.vm.erofs import cached_image
from lab.vm.inguest.agent import calls
from lab.vm.inguest.frames import Decoder
from lab.vm.initramfs import build_initramfs
from lab.vm.introduction import slowdown
from lab.vm.processor import Accel, processor_arguments
from lab.vm.tree import Tree, shared_libraries
from tests.support import open_fds

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
KERNEL = Kernel("9.9", "9.9.1", "9.9.1-1", "9.9.1-test", "fake", locked=True, verified_by="us")


def kernel_with(modules: Path, *names: str, built_in: str = "") -> KernelFiles:
    """A kernel of nothing but modules, whose names modprobe knows."""
    release = KERNEL.release
    place = modules / "lib/modules" / release
    (place / "kernel").mkdir(parents=True)
    for name in names:
        command = ["gcc", "-c", "-x", "c", "/dev/null", "-o", str(place / f"kernel/{name}.ko")]
        subprocess.run(command, check=True)
    for index in ("modules.order", "modules.builtin.modinfo"):
        (place / index).touch()
    (place / "modules.builtin").write_text(built_in)
    tools.run(["depmod", "-b", modules, release], what="indexing modules")
    nothing = modules / "none"
    return KernelFiles(KERNEL, nothing, nothing, nothing, place)


def test_an_initramfs_holds_what_init_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """busybox unpacks what we pack: our programs byte for byte, the modules that are not built in
    and their order; and the same kernel gives the same bytes, so that the cache finds them."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    names = ("virtio_blk", "erofs", "overlay")
    built_in = "kernel/virtio-pci.ko\nkernel/virtio_console.ko\n"
    files = kernel_with(tmp_path, *names, built_in=built_in)
    made = build_initramfs(files)
    directory = tmp_path / "root"
    directory.mkdir()
    subprocess.run(
        ["busybox", "cpio", "-i"],
        input=made.read_bytes(),
        cwd=directory,
        check=True,
        capture_output=True,
    )
    inguest = REPOSITORY / "lab/vm/inguest"
    assert (inguest / "init").read_bytes() == (directory / "init").read_bytes()
    assert 0o755 == (directory / "init").stat().st_mode & 0o777
    assert 0o755 == (directory / "bin/busybox").stat().st_mode & 0o777
    for script in ("pid1", "inguest/start.py"):
        there = directory / "lab" / script
        assert (inguest / there.name).read_bytes() == there.read_bytes()
    # The agent is there as a whole, and runs without its sources.
    assert not list(directory.glob("lab/inguest/agent.py"))
    ours, its = socket.socketpair()
    with ours, its:
        started = [sys.executable, "-I", "-S", "-B", "lab/inguest/start.py", "--fd", "0", "n0nce"]
        agent = subprocess.Popen(started, cwd=directory, stdin=its.fileno())
        its.close()
        assert [("hello", "n0nce")] == [
            (hello["event"], hello["nonce"]) for hello in Decoder().feed(ours.recv(1 << 16))
        ]
    assert 0 == agent.wait(timeout=60)
    assert [f"{name}.ko" for name in names] == (
        (directory / "lab/modules/order").read_text().split()
    )
    assert (files.modules / "kernel/erofs.ko").read_bytes() == (
        directory / "lab/modules/erofs.ko"
    ).read_bytes()
    assert (directory / "dev/console").is_char_device() or os.geteuid() != 0

    content = made.read_bytes()
    made.unlink()
    assert content == build_initramfs(files).read_bytes()


def test_a_kernel_without_a_way_to_its_root_is_refused(tmp_path: Path) -> None:
    """A module that is neither there nor built in is named before anything boots."""
    files = kernel_with(tmp_path, "virtio_blk", "overlay", built_in="kernel/virtio_pci.ko\n")
    with pytest.raises(LabError, match=r"9\.9\.1-test has no virtio_console, erofs, neither"):
        build_initramfs(files)


PANIC = """\
[    0.1] start\r
lab: init reached\r
[    5.1] BUG: kernel NULL pointer dereference, address: 0000000000000008\r
[    5.2] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\r
[    5.3] Kernel panic - not syncing: Fatal exception\r
[    5.4] Kernel Off"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            PANIC,
            "BUG: kernel NULL pointer dereference, address: 0000000000000008;"
            " Kernel panic - not syncing: Fatal exception",
        ),
        (
            "x\n[ 1.0] Kernel panic - not syncing: sysrq triggered crash\n",
            "Kernel panic - not syncing: sysrq triggered crash",
        ),
        (
            "lab: init: the disk /dev/vda did not appear within 10 s\nreboot\n",
            "lab: init: the disk /dev/vda did not appear within 10 s",
        ),
        ("[1.0] Oops: int3: 0000\n", "Oops: int3: 0000"),
        ("lab: the agent ended with status 1\n", "lab: the agent ended with status 1"),
        ("all is well\nlab: init reached\n", ""),
        # What the guest outlived is not what it died of, and a test's name is nobody's words.
        ("[ 1.0] BUG: old\n[ 2.0] lab: start 3 tests/x.py::test_a\n[ 3.0] Kernel Off\n", ""),
        ("[ 2.0][ T7] lab: start 3 tests/x.py::test_a[BUG: no]\n", ""),
        ("[ 2.0] lab: start 3 tests/x.py::test_a[BUG]\n[ 3.0] BUG: new\n", "BUG: new"),
    ],
)
def test_the_reason_of_a_death_is_read_from_the_console(
    tmp_path: Path, text: str, reason: str
) -> None:
    """The line that tells most is the one that is told."""
    console = Console(tmp_path / "console.log")
    console.path.write_text(text)
    assert console.reason().startswith(reason)
    assert bool(console.reason()) == bool(reason)


def test_the_log_is_complete_lines_and_the_tail_is_everything(tmp_path: Path) -> None:
    """A line still being written is no evidence yet, but is shown to a person."""
    console = Console(tmp_path / "console.log")
    assert (b"", "", "") == (console.read(), console.tail(), console.reason())
    console.path.write_bytes(PANIC.encode().replace(b"start", b"st\x1b[2Jart\xff"))
    assert console.read().endswith(b"Fatal exception\n")
    assert b"\r" not in console.read()
    assert console.read(raw=True).endswith(b"Kernel Off")
    assert "[    5.4] Kernel Off" == console.tail(2).splitlines()[1]
    assert "\x1b" not in console.tail()


def test_a_comma_in_a_path_is_no_option() -> None:
    """QEMU's options are cut at commas; ours in paths are doubled."""
    path = Path("/tmp/a,b")
    for device in (Disk("root", path), FilePort("x.y", path), SerialConsole(path)):
        assert "/tmp/a,,b" in " ".join(device.arguments())


@pytest.mark.parametrize(
    ("version", "cpus", "expected"),
    [((7, 2, 22), 1, "tcg"), ((7, 2, 22), 2, "tcg,thread=single"), ((10, 0, 2), 2, "tcg")],
)
def test_an_old_qemu_emulates_two_processors_in_one_thread(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], cpus: int, expected: str
) -> None:
    """Multi-threaded TCG of QEMU 7.2 kills kernels that patch themselves."""
    monkeypatch.setattr("lab.vm.processor.version", lambda: version)
    accel = Accel(AccelKind.TCG, "max", "q35", "")
    assert dict(zip(*[iter(processor_arguments(accel, cpus=cpus))] * 2, strict=True)) == {
        "-machine": "q35",
        "-accel": expected,
        "-cpu": "max",
        "-smp": str(cpus),
    }


@pytest.mark.parametrize(
    ("version", "cpu"),
    [
        ((7, 2, 0), "max,-cx16,-erms,-fsrm,-la57"),
        ((10, 0, 0), "max,-erms,-fsrm,-la57"),
    ],
)
def test_an_old_qemu_emulates_no_cmpxchg16b(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: tuple[int, int, int], cpu: str
) -> None:
    """QEMU 7.2 corrupts flags on it; QEMU 10 does not. No version is asked for fast strings, which
    none of them has. LAB_ACCEL is named as the reason."""
    monkeypatch.setattr(qemu, "version", lambda: version)
    monkeypatch.setenv("LAB_ACCEL", "tcg")
    files = KernelFiles(KERNEL, *[tmp_path] * 4)
    assert Accel(AccelKind.TCG, cpu, "q35", "LAB_ACCEL=tcg") == choose_accel(files)


def test_an_accelerator_there_is_not_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LAB_ACCEL=hvf is refused with the choices."""
    monkeypatch.setenv("LAB_ACCEL", "hvf")
    with pytest.raises(UsageError, match="LAB_ACCEL is 'hvf'") as caught:
        choose_accel(KernelFiles(KERNEL, *[tmp_path] * 4))
    assert "auto, kvm, tcg" in str(caught.value)


@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that plays QEMU: it notes each start and does what the file `script` says."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_ACCEL", raising=False)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    program = bin_directory / arch.here().qemu
    program.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && {{ echo "QEMU emulator version 10.0.2"; exit; }}
echo "$@" >>{tmp_path}/starts
for word; do case $word in file,id=console,path=*) console=${{word#*path=}} ;; esac; done
. {tmp_path}/script
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    monkeypatch.setattr("lab.vm.accel._kvm_is_out_of_reach", lambda: "")
    monkeypatch.setattr("lab.vm.accel.build_initramfs", lambda files: files.config)
    monkeypatch.setattr("lab.vm.accel.FIRST_LINE_S", 0.5)
    qemu.version.cache_clear()
    return tmp_path


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ('echo "lab: init reached" >"$console"; exec sleep 60', "kvm", "reached its init"),
        ('echo "lab: init reached" >"$console"', "kvm", "reached its init"),
        ("echo boom >&2; kill -ABRT $$", "tcg", "QEMU ended by SIGABRT: boom"),
        ("exit 1", "tcg", "QEMU ended with status 1"),
        ("exit 0", "tcg", "QEMU ended"),
        ("exec sleep 60", "tcg", "shows no life within 0.5 s"),
    ],
)
def test_kvm_counts_only_when_this_kernel_reached_its_init(
    fake_qemu: Path, script: str, kind: str, reason: str
) -> None:
    """A KVM that opens but does not boot the kernel is not used; the verdict is asked for once."""
    (fake_qemu / "script").write_text(script)
    files = KernelFiles(KERNEL, *[fake_qemu / "kernel" / name for name in "abcd"])
    accel = choose_accel(files, results=fake_qemu / "results")
    assert accel.kind == kind
    assert reason in accel.reason
    assert choose_accel(files) == accel
    silent = "no life" in reason  # both ways in were tried
    assert 1 + silent == len((fake_qemu / "starts").read_text().splitlines())
    (verdict,) = (fake_qemu / "cache/accel").iterdir()
    assert "kernel" == json.loads(verdict.read_text())["kernel"]
    qemu.version.cache_clear()


def test_the_first_line_has_the_five_seconds_of_the_contract() -> None:
    """KVM is slow enough to be useless when the first line takes longer."""
    assert FIRST_LINE_S == 5.0


def test_a_missing_kvm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No /dev/kvm, and one that may not be opened, are told apart."""
    from lab.vm.accel import _kvm_is_out_of_reach

    def refuse(error: OSError) -> None:
        def opening(*_: object) -> int:
            raise error

        monkeypatch.setattr("lab.vm.accel.os.open", opening)

    refuse(FileNotFoundError(2, "No such file or directory"))
    assert "no /dev/kvm" == _kvm_is_out_of_reach()
    refuse(PermissionError(13, "Permission denied"))
    assert "/dev/kvm does not open: Permission denied" == _kvm_is_out_of_reach()


def test_a_tree_has_the_links_of_the_host(tmp_path: Path) -> None:
    """What is reached through links on the host is reached through the same links there."""
    host = tmp_path / "host"
    (host / "usr/lib").mkdir(parents=True)
    (host / "lib").symlink_to("usr/lib")
    (host / "usr/lib/real-1.0").write_text("x")
    (host / "usr/lib/name").symlink_to("real-1.0")
    work = tmp_path / "work"
    work.mkdir()
    tree = Tree(work)
    tree.add(host / "lib/name")
    inside = work / host.relative_to("/")
    assert Path("usr/lib") == (inside / "lib").readlink()
    assert Path("real-1.0") == (inside / "usr/lib/name").readlink()
    assert "x" == (inside / "usr/lib/real-1.0").read_text()


def test_the_libraries_of_python_are_found() -> None:
    """The interpreter's closure holds the C library and the loader; what is not there is left
    out."""
    found = shared_libraries([Path(sys.executable)], by_name=("libnonsense.so.9",))
    names = {path.name for path in found}
    assert "libc.so.6" in names
    assert any(name.startswith("ld-linux") for name in names)
    assert all(path.exists() for path in found)


def test_an_image_with_a_changed_byte_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root image is compared before each use; a good one is not made twice."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    built: list[Path] = []

    def build(image: Path, work: Path) -> None:
        assert [] == list(work.iterdir())
        image.write_bytes(b"image")
        built.append(image)

    place = cached_image("kind-1.erofs", build)
    assert place == cached_image("kind-1.erofs", build)
    assert 1 == len(built)
    for damage in (b"imagf", b"imag", b""):
        place.write_bytes(damage)
        assert b"image" == cached_image("kind-1.erofs", build).read_bytes()
    place.with_name("kind-1.erofs.sha256").write_text("forged")
    assert b"image" == cached_image("kind-1.erofs", build).read_bytes()
    assert 5 == len(built)


def test_images_nobody_uses_go_when_a_newer_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of the environment makes an image; those unused for a month are removed."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))

    def build(image: Path, work: Path) -> None:
        image.write_text(str(work))

    old, used, other = (
        cached_image(name, build) for name in ("kind-1.erofs", "kind-2.erofs", "else-1.erofs")
    )
    long_ago = time.time() - 40 * 86400
    for place in (old, used, other):
        os.utime(place.with_name(place.name + ".sha256"), (long_ago, long_ago))
    cached_image("kind-2.erofs", build)
    new = cached_image("kind-3.erofs", build)
    assert [False, True, True, True] == [place.exists() for place in (old, used, other, new)]


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that could not be made is not there, in no part."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))

    def build(image: Path, work: Path) -> None:
        image.write_text(str(work))
        raise LabError("no room")

    with pytest.raises(LabError, match="no room"):
        cached_image("kind-1.erofs", build)
    assert [] == list((tmp_path / "scratch").iterdir())
    assert not (tmp_path / "images").exists()


def test_the_emulator_is_blamed_only_for_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A breakpoint where none should be is the emulator's with an old QEMU, TCG and two
    processors, and the kernel's otherwise."""
    tcg, kvm = (Accel(kind, "", "", "") for kind in (AccelKind.TCG, AccelKind.KVM))
    console = ["[    0.1] fine", "[    0.2] Oops: int3: 0000 [#1]", "[    0.3] Kernel panic"]

    def blamed(accel: Accel, cpus: int, version: tuple[int, int, int]) -> bool:
        monkeypatch.setattr(qemu, "version", lambda: version)
        sign = emulator.first_sign(console, emulator.deaths(accel, cpus=cpus))
        assert sign is None or (1, arch.here().deaths[0].reason) == sign
        return sign is not None

    assert blamed(tcg, 2, (7, 2, 22))
    assert not blamed(tcg, 1, (7, 2, 22))
    assert not blamed(tcg, 2, (10, 0, 0))
    assert not blamed(kvm, 2, (7, 2, 22))


# -- a kernel that looks for bugs in itself --------------------------------------------------------


def built_kernel(release: str) -> Kernel:
    return Kernel("6.12", "6.12.1", "6.12.1-built.x", release, "built", False, "a hash")


def test_debug_kernel_has_more_time_to_boot_and_to_run_a_test() -> None:
    usual, debug = built_kernel("6.12.1-lab"), built_kernel("6.12.1-lab-debug")
    assert direct.boot_seconds(debug, AccelKind.TCG) == 4 * direct.boot_seconds(
        usual, AccelKind.TCG
    )
    # Python is as fast in both, and calls of the kernel are not.
    assert 10.0 == slowdown(usual, [1.0, 9.0], [0.1, 0.1])
    assert 90.0 == slowdown(debug, [1.0, 9.0], [0.1, 0.1])
    assert 10.0 == slowdown(debug, [1.0, 0.5], [0.1, 0.1])


def test_debug_kernel_reports_every_bad_access(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of another kernel nothing is asked that it does not know."""
    lines: list[tuple[str, ...]] = []

    @contextmanager
    def started(*, cmdline: Sequence[str], **_others: object) -> Iterator[None]:
        lines.append(tuple(cmdline))
        yield

    @contextmanager
    def introduced(
        _files: KernelFiles,
        start: Callable[[tuple[str, ...]], AbstractContextManager[None]],
        **_others: object,
    ) -> Iterator[SimpleNamespace]:
        with start(("ours",)):
            yield SimpleNamespace()

    for name, stub in (("started", started), ("introduced", introduced)):
        monkeypatch.setattr(direct, name, stub)
    for name in ("build_initramfs", "build_modules_image", "image"):
        monkeypatch.setattr(direct, name, lambda *_: tmp_path)
    monkeypatch.setattr(direct, "remembered", lambda *_: usual())
    for release in ("6.12.1-lab-debug", "6.12.1-lab"):
        files = KernelFiles(built_kernel(release), tmp_path, tmp_path, tmp_path, tmp_path)
        accel = Accel(AccelKind.TCG, "cpu", "machine", "")
        with direct.boot(
            files, rootfs=tmp_path, accel=accel, results=tmp_path, extra_cmdline=["wished"]
        ):
            pass
    assert [("ours", "kasan_multi_shot", "wished"), ("ours", "wished")] == lines


def test_agent_measures_calls_of_the_kernel() -> None:
    before = open_fds()
    assert 0 < calls(30)
    assert before == open_fds()
