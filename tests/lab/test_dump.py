# SPDX-License-Identifier: MIT
"""`--dump`: the memory of a guest that a test hung in, or that its kernel complained of."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.vm import monitor
from lab.vm.memory import DUMP, MemoryAtEnd, memory_at_end
from tests.lab.suite_support import COMPLAIN, REPOSITORY, Little, leg_of

pytestmark = pytest.mark.lab

TESTS = """
def says(line):
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log: log.write(line + "\\n")
def test_good(): pass
def test_hangs(): time.sleep(60)
def test_splats(): says("<4>WARNING: CPU: 0 PID: 1 at made/up.c:1 f+0x1/0x2")
def test_panics(): says("<0>Kernel panic - not syncing: fake"); time.sleep(60)
"""


# -- what a run makes of it ------------------------------------------------------------------


def test_hang_splat_and_panic_leave_the_memory(little: Little) -> None:
    """Each failure names its file, and the page leads there."""
    little.tests(TESTS)
    ran = little.lab("--lab-timeout=3", "--dump")

    whys = {name: ran.why(name) for name in ("test_hangs", "test_splats", "test_panics")}
    assert re.search(r"hang-1\.txt has what was found; memory-1\.core has its memory$",
                     whys["test_hangs"])  # fmt: skip
    assert whys["test_splats"].endswith("; memory-2.core has its memory")
    assert whys["test_panics"].endswith("; memory-3.core has its memory")
    assert ["made up"] * 3 == [f.read_text() for f in sorted(ran.files.glob("memory-*.core"))]
    assert "\nmemory-1.core has its memory\n" in (ran.files / "hang-1.txt").read_text()
    assert '["memory-3.core","memory-3.core"]' in (ran.files / "report.html").read_text()
    assert {"test_good": "passed", "test_hangs": "lost"}.items() <= ran.verdicts.items()


def test_file_of_a_further_guest_is_named_with_its_directory(little: Little) -> None:
    """There may be files of that name of several guests."""
    little.tests(
        'def test_first(): os.write(1, b"x"); os.kill(os.getpid(), 9)\n'
        "def test_hangs(): time.sleep(60)\n"
    )
    ran = little.lab("--lab-timeout=3", "--dump", "-k", "first or hangs", fake={"vanishes": True})
    found = re.search(r"; (\S+) has what was found; (\S+) has its memory$", ran.why("test_hangs"))
    assert found is not None, ran.why("test_hangs")
    assert ("guest-2/hang-1.txt", "guest-2/memory-1.core") == found.groups()
    assert all((ran.files / name).exists() for name in found.groups())


def test_without_the_option_nothing_is_written(little: Little) -> None:
    little.tests(TESTS)
    ran = little.lab("--lab-timeout=3")
    assert [] == list(ran.files.glob("memory-*"))
    assert "memory" not in ran.why("test_hangs") + ran.why("test_splats")


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        ({"closed": True}, "nobody can look into this guest from outside"),
        ({"no_dump": "768 MiB are too much"}, "768 MiB are too much"),
    ],
    ids=["no monitor", "no room"],
)
def test_memory_that_cannot_be_had_is_one_sentence(
    little: Little, fake: dict[str, Any], why: str
) -> None:
    little.tests(TESTS)
    ran = little.lab("--lab-timeout=3", "--dump", "-k", "hangs or splats", fake=fake)
    for name in ("test_hangs", "test_splats"):
        assert ran.why(name).endswith(f"; its memory could not be dumped: {why}")


def test_it_is_of_guests(little: Little) -> None:
    little.tests(TESTS)
    ran = little.pytest("--dump")
    assert 4 == ran.code
    assert "--dump is of guests: name a kernel, --kernel 6.12" in ran.output


# -- what QEMU is asked, by a QEMU that is none -----------------------------------------------

Answers = Callable[[str, dict[str, Any]], dict[str, Any]]


def serve(sock: socket.socket, answers: Answers, events: list[str]) -> None:
    """QMP: greets, then answers; an event's name behind set-action."""
    version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
    with sock, suppress(ConnectionError):
        tell(sock, {"QMP": {"version": version, "capabilities": []}})
        for asked in commands(sock):
            command = asked["execute"]
            answer = answers(command, asked.get("arguments", {}))
            tell(sock, answer | ({"id": asked["id"]} if "id" in asked else {}))
            for name in events if command == "set-action" else ():
                tell(sock, {"event": name, "timestamp": {"seconds": 0, "microseconds": 0}})
            if command == "quit":
                return


def tell(sock: socket.socket, what: dict[str, Any]) -> None:
    sock.sendall(json.dumps(what).encode() + b"\n")


def commands(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """One JSON object after the other: qemu.qmp ends none with a line."""
    text = ""
    while data := sock.recv(65536):
        text += data.decode()
        while text := text.lstrip():
            try:
                found, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield found


@contextmanager
def qemu(answers: Answers, events: list[str] | None = None) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    thread = threading.Thread(target=serve, args=(theirs, answers, events or []), daemon=True)
    thread.start()
    with ours:
        yield ours
    thread.join(10)
    assert not thread.is_alive()


def sound(size: int = 1 << 20) -> Answers:
    def answers(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if command == "query-memory-size-summary":
            return {"return": {"base-memory": size}}
        if command == DUMP:
            Path(arguments["protocol"].removeprefix("file:")).write_text("memory")
        return {"return": {}}

    return answers


def full(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A disk that is full when half of it is written."""
    answer = sound()(command, arguments)
    if command == DUMP:
        return {"error": {"class": "GenericError", "desc": "dump: No space left on device"}}
    return answer


def test_memory_is_written_by_qmp(tmp_path: Path) -> None:
    with qemu(sound()) as sock:
        monitor.Monitor(sock).dump(tmp_path / "core")
    assert "memory" == (tmp_path / "core").read_text()


def test_full_disk_leaves_no_half_a_file(tmp_path: Path) -> None:
    """Neither where QEMU finds out, nor where that is known before."""
    with qemu(full) as sock, pytest.raises(LabError, match="No space left on device"):
        monitor.Monitor(sock).dump(tmp_path / "core")
    assert not (tmp_path / "core").exists()
    much = 1 << 60
    told = rf"{much >> 20} MiB are too much for a disk that has \d+ MiB left"
    with qemu(sound(much)) as sock, pytest.raises(LabError, match=told):
        monitor.Monitor(sock).dump(tmp_path / "core")
    assert not (tmp_path / "core").exists()


def test_qemu_that_does_not_answer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "DUMP_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(LabError, match="QEMU did not tell: TimeoutError"):
        monitor.Monitor(ours).dump(tmp_path / "core")


def ended(answers: Answers, file: Path, events: list[str]) -> MemoryAtEnd:
    """What came of the memory of a machine that ended behind these events."""
    with qemu(answers, events) as sock, memory_at_end(sock, file) as kept:
        if events:
            kept.join()
    return kept


def test_machine_that_ends_by_itself_leaves_its_memory(tmp_path: Path) -> None:
    """Whoever asks for it later has it under the name he asks for."""
    kept = ended(sound(), tmp_path / "end", ["STOP", "SHUTDOWN"])
    assert kept.written
    with socket.socket() as gone:
        monitor.Monitor(gone, kept).dump(tmp_path / "core")
    assert "memory" == (tmp_path / "core").read_text()
    assert not (tmp_path / "end").exists()


def test_machine_that_was_ended_leaves_nothing(tmp_path: Path) -> None:
    kept = ended(sound(), tmp_path / "end", [])
    assert not kept.written
    assert not (tmp_path / "end").exists()


@pytest.mark.parametrize("deaf_to", ["set-action", DUMP])
def test_why_the_end_left_no_memory_is_told(tmp_path: Path, deaf_to: str) -> None:
    """An old QEMU, or a full disk; what has been written of it is gone."""

    def answers(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = sound()(command, arguments)
        return {"error": {"desc": "it cannot be"}} if command == deaf_to else answer

    kept = ended(answers, tmp_path / "end", ["SHUTDOWN"])
    assert not (tmp_path / "end").exists()
    why = f"QEMU does not do {deaf_to}: it cannot be"
    with socket.socket() as gone, pytest.raises(LabError, match=why):
        monitor.Monitor(gone, kept).dump(tmp_path / "core")


# -- real guests -----------------------------------------------------------------------------

REAL = f"""{COMPLAIN}
def test_splats(): complain()
def test_panics():
    with open("/proc/sysrq-trigger", "w") as key: key.write("c")
"""


def notes_of(core: Path) -> bytes:
    """What the first segment of notes of an ELF core has."""
    with core.open("rb") as file:
        head = file.read(64)
        assert b"\x7fELF" == head[:4]
        file.seek(int.from_bytes(head[32:40], "little"))
        segment = file.read(56)
        assert 4 == int.from_bytes(segment[:4], "little")  # PT_NOTE
        file.seek(int.from_bytes(segment[8:16], "little"))
        return file.read(int.from_bytes(segment[32:40], "little"))


@pytest.mark.slow
def test_real_guests_leave_what_drgn_looks_for(tmp_path: Path) -> None:
    """A complaint, and a panic that takes the guest along: the cores have the kernel's VMCOREINFO
    with its own release, and no less than the guest's memory."""
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    (tmp_path / "test_it.py").write_text(REAL.removeprefix("\n"))
    done = subprocess.run(
        [sys.executable, "-m", "lab", "test", "--kernel", "6.12", "--dump", "--memory", "256M"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CI": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 1 == done.returncode, done.stdout
    files = tmp_path / "lab-results/latest"
    leg = leg_of(files)
    for number, name in enumerate(("test_splats", "test_panics"), 1):
        found = leg["verdicts"][f"test_it.py::{name}"]
        assert "splat" == found["verdict"]
        assert found["why"].endswith(f"; memory-{number}.core has its memory")
        core = files / f"memory-{number}.core"
        assert core.stat().st_size > 250 << 20
        assert f"OSRELEASE={leg['kernel']['release']}\n".encode() in notes_of(core)
