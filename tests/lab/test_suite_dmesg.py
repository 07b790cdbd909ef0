# SPDX-License-Identifier: MIT
"""The gate that reads the kernel's log finds complaints, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kernels import Kernel
from lab.rules import dmesg
from lab.vm.kmsg import Gap, Reader, Record

pytestmark = pytest.mark.lab

CASES = Path(__file__).with_name("dmesg_cases")
SPLATS = sorted((CASES / "splat").iterdir())
CLEAN = sorted((CASES / "clean").iterdir())


@pytest.mark.parametrize("path", SPLATS, ids=lambda path: path.stem)
def test_complaint_is_found(path: Path) -> None:
    """Each recorded complaint of a kernel is found, and its excerpt starts with its line."""
    splats = dmesg.scan(path.read_bytes())

    assert splats
    assert [s.line for s in splats] == [s.excerpt.splitlines()[0].strip() for s in splats]


@pytest.mark.parametrize("path", CLEAN, ids=lambda path: path.stem)
def test_ordinary_log_is_clean(path: Path) -> None:
    """What only looks like a complaint is not one."""
    assert [] == dmesg.scan(path.read_bytes())


def test_every_pattern_has_a_case() -> None:
    """A pattern that no recorded log needs could be misspelt without anybody noticing."""
    splats = "\n".join(path.read_text() for path in SPLATS)
    # An exception is needed only for a line that would be found without it.
    near = [
        line
        for path in CLEAN
        for line in path.read_text().splitlines()
        if any(p.search(line) for p in dmesg.denied())
    ]

    assert [] == [p.pattern for p in dmesg.denied() if not p.search(splats)]
    assert [] == [a for a in dmesg.allowed() if not any(map(a.pattern.search, near))]


def test_log_that_is_no_text_is_read_all_the_same() -> None:
    """Bytes that are no UTF-8 do not hide the complaint after them."""
    splats = dmesg.scan(b"[ 1.0] \xff\xfe\x00\n[ 1.1] UBSAN: shift-out-of-bounds in x.c:1:1\n")

    assert ["[ 1.1] UBSAN: shift-out-of-bounds in x.c:1:1"] == [s.line for s in splats]


def test_every_complaint_counts() -> None:
    """A second complaint is not hidden by the first, and each has what follows it."""
    log = b"""\
[    1.000000] WARNING: CPU: 0 PID: 7 at io_uring/kbuf.h:146 io_recv_finish+0x37c/0x4a0
[    1.000001] Call Trace:
[    1.000002] BUG: KASAN: use-after-free in io_uring_cmd+0x1/0x2
[    1.000003] Read of size 8 at addr ffff888100000000 by task python3/7
"""
    first, second = dmesg.scan(log)

    assert "WARNING" in first.line
    assert "Call Trace:" in first.excerpt
    assert "KASAN" not in first.excerpt
    assert "KASAN" in second.line
    assert "Read of size 8" in second.excerpt


KERNEL = Kernel("6.12", "6.12.107", "6.12.107-1", "6.12.107+x", "t", locked=True, verified_by="t")


def _allowance(
    kernels: str, reason: str = "It is known to be harmless.", pattern: str = "'WARNING: '"
) -> str:
    return f"[[allow]]\npattern = {pattern}\nkernels = {kernels}\nreason = '{reason}'\n"


@pytest.mark.parametrize(
    ("kernels", "covers"),
    [
        ('"every"', True),
        ('["6.12"]', True),
        ('["6.12.107"]', True),
        ('["6.12.107-1"]', True),
        ('["6.12.107+x"]', True),
        ('["6.1", "6.12.1"]', False),
    ],
)
def test_allowance_is_for_its_kernels(kernels: str, covers: bool) -> None:
    """An allowance is for the kernels that it names, and for no kernel that nobody named."""
    (allowance,) = dmesg.read_allowances(_allowance(kernels))

    assert covers is allowance.covers(KERNEL)
    assert allowance.covers(None) is (kernels == '"every"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_allowance("[]"), r"names the kernels \[\]"),
        (_allowance('"6.12"'), "names the kernels '6.12'"),
        (_allowance('"every"', "known"), "which explains nothing"),
        ("[[allow]]\npattern = 'x'\nkernels = 'every'\n", "not pattern, kernels and reason"),
        (_allowance("6.12"), "names the kernels 6.12"),
        (_allowance('"every"', pattern="''"), "'' allows everything"),
        (_allowance('"every"', pattern="'.'"), "'.' allows everything"),
        (_allowance('"every"', pattern="'|WARNING'"), "allows everything"),
        (_allowance('"every"', pattern="'('"), "is no regular expression"),
        (_allowance('"every"', pattern="7"), "7 is no text"),
        ("allow = ['WARNING']", "not a table"),
    ],
)
def test_allowance_without_kernel_or_reason_is_refused(text: str, words: str) -> None:
    """Whoever allows a line says which, where and why; all lines is none."""
    with pytest.raises(ValueError, match=words):
        dmesg.read_allowances(text)


def _kmsg(*lines: str) -> list[Record]:
    return list(Reader().take("".join(f"{line}\n" for line in lines).encode()).records)


def test_records_are_cut_as_the_kernel_writes_them() -> None:
    """Number, time, who said it, escaped bytes and line breaks, and the lines of a device."""
    records = _kmsg(
        "6,0,339,-;virtio_blk virtio2: [vda] 65536 blocks",
        " SUBSYSTEM=virtio",
        " DEVICE=+virtio:virtio2",
        "12,1,9500001,-,caller=T1;lab: mark \\xc3\\xa9",
        "4,2,9500002,c;first\\x0asecond",
    )

    assert [0, 1, 2] == [record.number for record in records]
    assert [True, False, True] == [record.from_kernel for record in records]
    assert [False, False, True] == [record.fragment for record in records]
    assert "[    9.500001] lab: mark é" == records[1].line
    assert "first\nsecond" == records[2].text


def test_missing_numbers_are_a_gap() -> None:
    """Records that were overwritten unread are named, at the beginning and in the middle."""
    reader = Reader()

    assert [Gap(0, 4)] == reader.take(b"6,5,1,-;a\n6,6,1,-;b\n").gaps
    assert [] == reader.take(b"6,7,1,-;c\n").gaps
    assert [Gap(8, 8)] == reader.take(b"6,9,1,-;d\n").gaps
    assert "records 8 to 8 of the kernel's log are lost (1)" == str(Gap(8, 8))


@pytest.mark.parametrize(
    "data", [b"nonsense\n", b"6,x,1,-;a\n", b"6,0,1,-;a\n6,0,1,-;a\n", b"6,0,1,-;a"]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    """Damaged and repeated records are no log."""
    with pytest.raises(ValueError, match=r"no record|was due|inside a record"):
        Reader().take(data)


def test_only_the_kernel_complains() -> None:
    """A process that writes into the log looks like a kernel to nobody."""
    assert [] == dmesg.scan_records(_kmsg("12,0,1,-;WARNING: CPU: 0 PID: 1 at x.c:1"))
    assert 1 == len(dmesg.scan_records(_kmsg("4,0,1,-;WARNING: CPU: 0 PID: 1 at x.c:1")))


def test_message_in_fragments_is_a_complaint() -> None:
    """A message that another processor's words cut in two is found, and so is one in a line
    behind the first of its record."""
    cut = _kmsg("4,0,1,-;INFO: task python3:77 blocked for more", "4,1,1,c; than 122 seconds.")
    behind = _kmsg("4,0,1,-;=====\\x0aBUG: KASAN: use-after-free in f+0x1/0x2")

    assert ["[    0.000001] INFO: task python3:77 blocked for more than 122 seconds."] == [
        splat.line for splat in dmesg.scan_records(cut)
    ]
    assert 1 == len(dmesg.scan_records(behind))
