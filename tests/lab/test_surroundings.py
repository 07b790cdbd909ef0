# SPDX-License-Identifier: MIT
"""Machines, users and terminals of every kind: a verdict, or one sentence with the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lab import cache, project, tools
from lab.errors import LabError
from lab.kernels import upkeep
from lab.remote import sending
from lab.report import results
from lab.vm import accel, qemu, room, virtme
from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab


def test_no_home_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom nobody knows has no home to keep a cache in; LAB_CACHE helps."""
    for name in ("HOME", "LAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)

    with pytest.raises(LabError, match=r"no home directory .*name a directory in LAB_CACHE"):
        cache.root()


@pytest.mark.parametrize("place", ["/proc/lab", "/proc", "/dev/null/lab"])
def test_cache_that_cannot_be_written_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A cache on a read-only or strange file system is named, with the way out."""
    monkeypatch.setenv("LAB_CACHE", place)

    with pytest.raises(LabError, match=rf"{place} cannot be written: .*LAB_CACHE"):
        cache.root()


def test_results_that_cannot_be_written_are_a_sentence(little: Little) -> None:
    """On a read-only checkout the run ends with one line that names --lab-results."""
    little.tests(TWO)

    ran = little.lab("--lab-results=/proc/lab-results")

    assert ran.code == 3, ran.output
    assert "Traceback" not in ran.output
    assert "cannot be written to /proc/lab-results" in ran.last_line
    assert "name another directory with --lab-results" in ran.last_line


def test_cache_of_pytest_that_cannot_be_written(little: Little) -> None:
    """Where pytest cannot keep what --lf needs, as on a read-only checkout, the verdicts stand."""
    little.tests(TWO)
    (little.root / ".pytest_cache/v/cache/nodeids").mkdir(parents=True)  # a file's place

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert "could not write path" in ran.output


def test_left_over_link_is_no_obstacle(tmp_path: Path) -> None:
    """A run that was killed between two calls left a link with our process number."""
    directory = results.new_directory(tmp_path, "6.12")
    (tmp_path / f".latest.{os.getpid()}").symlink_to("elsewhere")

    results.point_latest(directory)

    assert (tmp_path / "latest").resolve() == directory


def test_file_name_that_is_not_utf8(little: Little) -> None:
    """A file may have any name: it is hashed and travels byte for byte."""
    little.tests(TWO)
    strange = os.fsencode(little.root / "tests") + b"/caf\xe9.txt"
    with open(strange, "wb") as file:  # noqa: PTH123  (a name of bytes)
        file.write(b"x")

    ran = little.lab()

    assert ran.code == 0, ran.output
    hashed = sending.of(project.read(little.root)).hashes()[0]
    os.rename(strange, os.fsencode(little.root / "tests") + b"/caf\xe8.txt")  # noqa: PTH104
    assert sending.of(project.read(little.root)).hashes()[0] != hashed


def test_terminal_that_knows_few_characters(little: Little) -> None:
    """What a Latin-1 terminal cannot show is shown in ASCII; the verdict stands."""
    little.tests('def test_one(): assert "Ω" == "日本"\n')

    for encoding in ("latin-1", "ascii"):
        ran = little.run(
            *("lab", "test", "--kernel", "6.12", "-p", "tests.lab.hostile.plugin"),
            PYTHONIOENCODING=encoding,
            PYTHONUTF8="0",
        )
        assert ran.code == 1, ran.output
        assert "Traceback" not in ran.output
        assert "\\u03a9" in ran.output
        assert ran.verdicts == {"test_one": "failed"}


def test_directory_with_a_space_and_an_umlaut(tmp_path: Path) -> None:
    """A checkout may be anywhere."""
    place = tmp_path / "mein Gerät, neu"
    place.mkdir()
    little = Little(place)
    little.tests(TWO)

    ran = little.lab()

    assert ran.code == 0, ran.output


def test_long_tmpdir_is_passed_over_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's name holds 107 bytes; where $TMPDIR is longer, its directory is elsewhere."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with virtme._short_directory() as name:
        place = Path(name) / "monitor"
        with virtme._listening(place):
            assert place.is_socket()
    assert not Path(name).exists()


def test_programs_speak_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """LANGUAGE goes before LC_ALL; what is read here is in one language."""
    for name, value in (("LANGUAGE", "de"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8")):
        monkeypatch.setenv(name, value)

    told = tools.run(["setpriv", "--reuid", "0", "--", "env"], what="asking for the environment")

    assert "LANGUAGE=en\n" in told
    assert "LC_ALL=C.UTF-8\n" in told


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_prune_waits_for_a_package_in_use(own_cache: Path) -> None:
    """What a run holds the lock of is not pruned under it, and not afterwards: it was used."""
    sha256 = "0" * 64
    package = own_cache / "packages" / sha256 / "linux.deb"
    package.parent.mkdir(parents=True)
    package.write_bytes(b"x")
    os.utime(package, (1, 1))
    gone: list[upkeep.Entry] = []

    def prune() -> None:
        gone.extend(entry for entry, _ in upkeep.prune(older_than_s=1.0, at_most=None))

    with cache.locked(cache.package_lock(sha256)):
        thread = threading.Thread(target=prune)
        thread.start()
        time.sleep(0.3)
        assert package.exists()
        os.utime(package)  # as the store does with what it hands out
    thread.join(30)

    assert gone == []
    assert package.exists()
    os.utime(package, (1, 1))
    prune()
    assert not package.exists()


@pytest.mark.parametrize(("waited", "kept"), [(4.0, False), (0.1, True)])
@pytest.mark.usefixtures("own_cache")
def test_silence_on_a_busy_host_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waited: float, kept: bool
) -> None:
    """That KVM showed no life is an answer for good only if QEMU had the processor meanwhile."""
    from lab.kernels import Kernel, KernelFiles

    tries: list[str] = []

    class Silent:
        def ended(self, timeout_s: float = 0) -> bool:
            tries.append(f"{timeout_s:g}")
            return False

        def seconds_without_processor(self) -> float:
            return waited

    class Running:
        def __enter__(self) -> Silent:
            return Silent()

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(qemu, "running", lambda *_, **__: Running())
    monkeypatch.setattr(qemu, "version", lambda: (7, 2, 0))
    monkeypatch.setattr(accel, "build_initramfs", lambda _: tmp_path / "initramfs")
    monkeypatch.setattr(accel, "_kvm_is_out_of_reach", lambda: "")
    kernel = Kernel("6.12", "6.12.1", "6.12.1-1", "6.12.1", "fake", True, "nobody")
    place = tmp_path / "kernel"
    files = KernelFiles(kernel, place / "z", place / "x", place / "config", place / "modules")

    found = [accel.choose_accel(files, results=tmp_path / "results") for _ in range(2)]

    # Each time both ways in are tried, because not one byte came.
    assert len(tries) == (2 if kept else 4)
    assert all("shows no life within 5 s" in one.reason for one in found)
    assert all(("waited for a processor" in one.reason) is not kept for one in found)


def test_time_without_a_processor_is_seen(tmp_path: Path) -> None:
    """Of three busy processes on one processor, two wait at any time."""
    spin = "import time; end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
    one = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(one), "sh", "-c"]
    command.append(" & ".join([f"{sys.executable} -c '{spin}'"] * 3) + " & wait")

    with qemu.running(command, log=tmp_path / "log") as running:
        running.ended(2.0)
        waited = running.seconds_without_processor()

    assert 0.5 < waited < 12.0


@pytest.mark.parametrize(
    ("files", "processors", "free"),
    [
        ({}, None, None),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"cpu.max": "100000 100000"}, 1, None),
        ({"cpu.max": "50000 100000"}, 1, None),
        (
            {
                "memory.max": str(2 << 30),
                "memory.current": str(1 << 30),
                "memory.stat": f"anon 5\ninactive_file {256 << 20}\n",
            },
            None,
            1024 + 256,
        ),
    ],
)
def test_room_heeds_the_control_group(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    processors: int | None,
    free: int | None,
) -> None:
    """A container's limits bound how many guests there are at once, also those of a group above."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/outer/inner\n")
    (proc / "meminfo").write_text("MemTotal: 1\nMemAvailable:   8388608 kB\n")
    (groups / "outer/inner").mkdir(parents=True)
    for name, text in files.items():
        (groups / "outer" / name).write_text(text)
    monkeypatch.setattr(room, "_PROC", proc)
    monkeypatch.setattr(room, "_CGROUPS", groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})

    assert room.processors() == (processors or 4)
    assert room.free_mib() == (free or 8192)


def test_room_heeds_the_older_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cgroup v1 has a tree for each controller, named in the third column."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("4:cpu,cpuacct:/job\n3:memory:/job\n1:name=systemd:/\n")
    (proc / "meminfo").write_text("MemAvailable:   8388608 kB\n")
    for path, text in (
        ("cpu,cpuacct/job/cpu.cfs_quota_us", "200000"),
        ("cpu,cpuacct/job/cpu.cfs_period_us", "100000"),
        ("memory/job/memory.limit_in_bytes", str(1 << 30)),
        ("memory/job/memory.usage_in_bytes", str(1 << 29)),
    ):
        place = groups / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    monkeypatch.setattr(room, "_PROC", proc)
    monkeypatch.setattr(room, "_CGROUPS", groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})

    assert room.processors() == 2
    assert room.free_mib() == 512


def test_lab_in_a_foreign_language_without_a_home(little: Little) -> None:
    """A user without HOME, in a German session: the fake guest needs no cache, and has its
    verdict."""
    little.tests(TWO)
    environment = little.environment(LANGUAGE="de", LANG="de_DE.UTF-8", LAB_FAKE=json.dumps({}))
    environment.pop("HOME", None)
    with suppress(KeyError):
        del environment["LAB_CACHE"]

    done = subprocess.run(
        [
            *(sys.executable, "-m", "lab", "test", "--kernel", "6.12"),
            *("-p", "tests.lab.hostile.plugin"),
        ],
        cwd=little.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=little.limit_s,
        check=False,
    )

    ran = little.ran(done.returncode, done.stdout + done.stderr)
    assert ran.code == 0, ran.output
