# SPDX-License-Identifier: MIT
"""Kernels that will not start: each is named by what happened, and another way in is tried once."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab import kernels
from lab.arch import Entry
from lab.arch.x86_64 import BZIMAGE, PVH, X86_64
from lab.errors import GuestLost, NoSignOfLife
from lab.kernels import KernelFiles
from lab.vm import Accel, boot, build_rootfs, choose_accel, direct, entry, silence
from lab.vm.initramfs import build_initramfs, build_modules_image
from lab.vm.machine import Machine
from lab.vm.silence import Silence
from lab.vm.standing import Standing

pytestmark = pytest.mark.lab

TCG = Accel(cast("Any", "tcg"), "max", "q35", "for a test")


class Clockwork:
    """A machine of which the test says what it does, and a clock that it winds."""

    def __init__(self, directory: Path) -> None:
        self.now, self.waited, self.asked = 0.0, 0.0, 0
        self.stuck, self.idle = True, False
        self.console = directory / "console.log"
        self.stray = directory / "stray.log"
        self.console.touch()

    def machine(self) -> Machine:
        """It, with the parts that `Silence` looks at."""

        def tail(lines: int) -> str:
            return "\n".join(self.console.read_text().splitlines()[-lines:])

        def describe(**_: object) -> Standing:
            self.asked += 1
            places = [[0xFFFFFFFF81000010 + (0 if self.stuck else 4096 * n)] for n in range(6)]
            return Standing(places, self.idle, "status: running\n", self.idle)

        return cast(
            "Machine",
            SimpleNamespace(
                console=SimpleNamespace(path=self.console, tail=tail),
                stray=self.stray,
                process=SimpleNamespace(seconds_without_processor=lambda: self.waited),
                hypervisor=SimpleNamespace(describe=describe),
            ),
        )


@pytest.fixture
def clockwork(tmp_path: Path) -> Clockwork:
    """A machine that says nothing and gets nowhere."""
    return Clockwork(tmp_path)


def test_silence_is_given_a_few_seconds(clockwork: Clockwork) -> None:
    """Without a byte and without progress a guest is given up after seconds, not after minutes, and
    the sentence says what came and where the processor stands."""
    watched = Silence(clockwork.machine(), clock=lambda: clockwork.now)

    clockwork.now = silence.BEFORE_FIRST_S - 0.1
    assert watched.why() == ""
    assert clockwork.asked == 0
    clockwork.now = silence.BEFORE_FIRST_S
    assert watched.why() == (
        "the guest shows no sign of life for 6 s: not one byte came from it, and the processor "
        "stands at 0xffffffff81000010"
    )
    assert watched.lifeless


def test_progress_is_a_sign_of_life(clockwork: Clockwork) -> None:
    """A quiet kernel whose processor gets somewhere is waited for, and looked at again."""
    watched = Silence(clockwork.machine(), clock=lambda: clockwork.now)
    clockwork.stuck = False

    for clockwork.now in (10.0, 11.0, 60.0):
        assert watched.why() == ""
    assert clockwork.asked == 2  # not each time
    clockwork.stuck = True
    clockwork.now = 70.0
    assert "no sign of life for 70 s" in watched.why()


def test_busy_host_is_no_silence(clockwork: Clockwork) -> None:
    """The time in which QEMU had no processor is not the guest's."""
    watched = Silence(clockwork.machine(), clock=lambda: clockwork.now)

    clockwork.now, clockwork.waited = 30.0, 25.0
    assert watched.why() == ""
    clockwork.now = 31.5
    assert "no sign of life for 6 s" in watched.why()


def test_idle_processor_may_wait_for_the_host(clockwork: Clockwork) -> None:
    """A guest with nothing to do waits for a file that this host has not delivered yet: it is given
    a minute. One that nothing wakes within it is given up."""
    watched = Silence(clockwork.machine(), clock=lambda: clockwork.now)
    clockwork.idle = True

    for clockwork.now in (7.0, 20.0, silence.IDLE_S - 0.1):
        assert watched.why() == ""
    clockwork.now = silence.IDLE_S + silence.AGAIN_S
    assert watched.why().endswith(
        "not one byte came from it, and the processor stands at 0xffffffff81000010, idle"
    )


def test_each_byte_is_a_sign_of_life(clockwork: Clockwork) -> None:
    """What came last is named when nothing more comes."""
    watched = Silence(clockwork.machine(), clock=lambda: clockwork.now)

    clockwork.now = 5.0
    clockwork.console.write_text("lab: init reached\n")
    assert watched.why() == ""
    clockwork.now = 5.0 + silence.BETWEEN_S - 0.1
    assert watched.why() == ""
    clockwork.now = 5.0 + silence.BETWEEN_S
    assert "18 bytes came from its ports, the last line was 'lab: init reached'" in watched.why()
    assert not watched.lifeless


def test_all_processors_have_to_stand_still() -> None:
    """One processor that gets somewhere is enough, and no answer of QEMU's is no standstill."""
    assert Standing([[1, 9000], [1, 9000]], False, "").stuck
    assert not Standing([[1, 0], [1, 9000]], False, "").stuck
    assert not Standing([], False, "QEMU did not tell: no").stuck
    assert str(Standing([[1, 2]], True, "")) == "the processors stand at 0x1, 0x2, halted"
    assert str(Standing([[1]], True, "", True)) == "the processor stands at 0x1, idle"
    assert str(Standing([], False, "QEMU did not tell: no\n")) == "QEMU did not tell: no"


@pytest.mark.parametrize(
    ("registers", "halted", "idle"),
    [
        ("RIP=ffffffff81d0fa3f RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1", True, True),
        ("RIP=ffffffff81d0fa3f RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1", True, True),
        ("RIP=ffffffff81d0fa3f RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0", False, False),
        # Interrupts are off: nothing will ever wake it.
        ("RIP=0000000001000010 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1", True, False),
        ("EIP=01000010 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1", True, False),
    ],
    ids=["idle", "idle-no-flags", "runs", "stopped", "stopped-32-bit"],
)
def test_idle_and_stopped_processors_are_told_apart(
    registers: str, halted: bool, idle: bool
) -> None:
    """Both are halted in QEMU's words; only one that takes interrupts is idle."""
    assert bool(X86_64.halted.search(registers)) is halted
    assert bool(X86_64.idle.search(registers)) is idle


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelFiles:
    """Files of no kernel, and a cache of this test's."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(direct, "build_initramfs", lambda _: tmp_path / "initramfs")
    monkeypatch.setattr(direct, "build_modules_image", lambda _: tmp_path / "modules")
    kernel = kernels.Kernel("6.11", "6.11.11", "local-1", "6.11.11", "local", False, "nobody")
    place = tmp_path / "6.11.11-0123"
    return KernelFiles(kernel, place / "vmlinuz", place / "vmlinux", place / "c", place / "m")


@pytest.mark.parametrize("works", [BZIMAGE, PVH, None])
def test_other_way_in_is_tried_once_and_remembered(
    files: KernelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: Entry | None
) -> None:
    """Without a sign of life the other way is tried, once, and kept for this very kernel; when both
    are silent the sentence names both."""
    tried: list[str] = []
    monkeypatch.setattr(direct, "started", lambda **parts: tried.append(parts["kernel"].name))

    @contextmanager
    def introduced(_files: KernelFiles, start: Any, **_: object) -> Iterator[SimpleNamespace]:
        start(())
        if works is None or tried[-1] != entry.image(files, works).name:
            raise NoSignOfLife("not one byte came from it")
        yield SimpleNamespace(entry="")

    monkeypatch.setattr(direct, "introduced", introduced)

    def enter() -> str:
        with boot(files, rootfs=tmp_path, accel=TCG, results=tmp_path) as booted:
            return booted.entry

    if works is PVH:
        assert enter() == ""
        assert tried == ["vmlinux"]
    elif works is BZIMAGE:
        assert enter() == (
            "as a bzImage; by PVH, as an uncompressed ELF: not one byte came from it"
        )
        assert enter() == "as a bzImage, which has worked when PVH did not"
        assert tried == ["vmlinux", "vmlinuz", "vmlinuz"]
        other = replace(files, vmlinux=tmp_path / "6.11.12-4567" / "vmlinux")
        assert entry.remembered(other, TCG) is PVH
    else:
        with pytest.raises(GuestLost, match=r"entered by PVH.*entered as a bzImage: not one byte"):
            enter()
        assert tried == ["vmlinux", "vmlinuz"]
        assert entry.remembered(files, TCG) is PVH


def test_a_guest_that_spoke_is_not_entered_again(
    files: KernelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that died after its first byte died of something else."""
    tried: list[str] = []
    monkeypatch.setattr(direct, "started", lambda **parts: tried.append(parts["kernel"].name))

    @contextmanager
    def introduced(_files: KernelFiles, start: Any, **_: object) -> Iterator[None]:
        start(())
        if tried:
            raise GuestLost("the guest died: Kernel panic")
        yield

    monkeypatch.setattr(direct, "introduced", introduced)

    with pytest.raises(GuestLost, match=r"^the guest died: Kernel panic$"):
        with boot(files, rootfs=tmp_path, accel=TCG, results=tmp_path):
            pass
    assert tried == ["vmlinux"]


def _looping_elf() -> bytes:
    """An ELF that QEMU enters by PVH, and whose first instruction jumps to itself."""
    base, code = 0x1000000, b"\xeb\xfe"
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", base)  # XEN_ELFNOTE_PHYS32_ENTRY
    head, each = 64, 56
    at_code = 0x1000
    at_note = head + 2 * each
    elf = struct.pack(
        "<4sBBBBQHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, base, head, 0, 0, head, each, 2, 0, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, at_code, base, base, len(code), len(code), 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, at_note, 0, 0, len(note), len(note), 4)
    return (elf + load + notes + note).ljust(at_code, b"\0") + code


def test_kernel_that_loops_at_its_entry_boots_as_a_bzimage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real guest whose ELF hangs without a byte, beside a bzImage that boots: the guest comes up,
    and says which way."""
    whole = kernels.obtain(kernels.resolve("6.12"))
    accel = choose_accel(whole)
    looping = tmp_path / "6.12-looping" / "vmlinux"
    looping.parent.mkdir()
    looping.write_bytes(_looping_elf())
    rootfs = build_rootfs()
    initramfs, modules = build_initramfs(whole), build_modules_image(whole)
    monkeypatch.setattr(direct, "build_initramfs", lambda _: initramfs)
    monkeypatch.setattr(direct, "build_modules_image", lambda _: modules)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))  # what is remembered is this test's

    began = time.monotonic()
    with boot(
        replace(whole, vmlinux=looping), rootfs=rootfs, accel=accel, results=tmp_path / "results"
    ) as booted:
        assert booted.uname == whole.kernel.release
        assert booted.entry.startswith("as a bzImage; by PVH, as an uncompressed ELF: the guest")
        assert "not one byte came from it, and the processor stands at 0x1000000" in booted.entry
        # Its agent waits for a call: sooner or later QEMU shows a machine with nothing to do.
        assert booted.hypervisor is not None
        assert any(booted.hypervisor.describe(times=3, apart_s=0.1).idle for _ in range(50))
    assert (tmp_path / "results/console-state.txt").read_text().startswith("status: ")
    assert time.monotonic() - began < 300
