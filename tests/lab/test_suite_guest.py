# SPDX-License-Identifier: MIT
"""`lab test` with a real 6.12 guest: what the fake one cannot show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.errors import KernelUnavailable
from lab.kernels import resolve
from tests.lab import foreign_support
from tests.lab.foreign_support import Foreign
from tests.lab.suite_support import COMPLAIN, REPOSITORY, Little
from tests.support import until

# Each of these boots at least one guest, which takes seconds, and minutes on a busy machine.
pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def real(little: Little) -> Little:
    """A repository with the real ioxide, as it is built here, and the real contract."""
    shutil.rmtree(little.root / "ioxide")
    shutil.copytree(REPOSITORY / "ioxide", little.root / "ioxide")
    shutil.copy(REPOSITORY / "tests/kernels/expected.toml", little.root / "tests/kernels")
    settings = little.root / "pyproject.toml"
    table = '[tool.lab]\nproducts = ["ioxide/_ring/_native*.so"]\n'
    settings.write_text(settings.read_text().replace("[tool.lab]\n", table, 1))
    little.limit_s = 500
    return little


def machines(results: Path) -> list[int]:
    """The processes of QEMU that write into this directory of results."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            files = [os.fspath(link.readlink()) for link in (process / "fd").iterdir()]
            name = (process / "comm").read_text()
        except OSError:
            continue  # Gone meanwhile, or a kernel thread.
        if name.startswith("qemu-") and any(f.startswith(f"{results}/") for f in files):
            found.append(int(process.name))
    return found


def test_a_test_runs_in_the_guest_that_it_asks_for(real: Little) -> None:
    """What the mark says is there when the test runs, and not in the others' guest; a sysctl that
    this kernel has not costs its test alone."""
    real.tests("""
from pathlib import Path
def loaded(): return "\\ndummy " in "\\n" + Path("/proc/modules").read_text()
def test_usual():
    assert os.cpu_count() == 1
    assert not loaded()
@pytest.mark.guest(
    cpus=2, memory="512M", sysctl={"vm.swappiness": 7}, cmdline="foo.bar=1", modules=["dummy"]
)
def test_other():
    assert os.cpu_count() == 2
    assert loaded()
    assert Path("/proc/sys/vm/swappiness").read_text() == "7\\n"
    assert "foo.bar=1" in Path("/proc/cmdline").read_text().split()
    assert 300_000 < int(Path("/proc/meminfo").read_text().split()[1]) < 512 << 10
@pytest.mark.guest(sysctl={"vm.nosuch": 7})
def test_none(): pass
""")

    ran = real.run("lab", "test", "--kernel", "6.12")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_usual": "passed", "test_other": "passed", "test_none": "lost"}
    assert "does not take the sysctl vm.nosuch=7: it has no such sysctl" in ran.why("test_none")
    assert [] == machines(ran.files.resolve())


def test_pytest_and_its_plugins_work_in_a_real_guest(little: Little) -> None:
    """Somebody else's repository: fixtures, subtests, doctests, asyncio, anyio, hypothesis, options
    of its own; what hypothesis and coverage leave comes home."""
    foreign = Foreign.of(little)
    foreign.limit_s = 500

    ran = foreign.run("lab", "test", "--kernel", "6.12", "--cov=foreign", "--flavour=sweet")

    foreign_support.check(ran)
    assert "'flavour': 'sweet'" in ran.why("test_told")
    package = str(foreign.root / "src/foreign/__init__.py")
    found = foreign_support.measured(foreign.root / ".coverage")
    assert [package] == list(found)
    assert foreign_support.line_of('        return "guest"') in found[package]
    assert any(path.is_file() for path in (foreign.root / ".hypothesis/examples").rglob("*"))


def test_panic_in_a_real_guest_costs_one_test(real: Little) -> None:
    """A panic is a splat of its test, with the console's last lines; the rest is proved in a fresh
    guest, which proves itself anew."""
    real.tests("""
def test_before(lab_identity):
    assert lab_identity.nonce == lab_identity.expected.nonce
def test_panic():
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("c")
    time.sleep(600)
def test_exit(): os._exit(0)
@pytest.mark.needs("INC", "BUNDLE", "MIN_WAIT", "NAPI")
def test_after(lab_identity):
    expected = lab_identity.expected
    assert lab_identity.release == expected.release
    assert lab_identity.release.startswith("6.12.")
    assert lab_identity.nonce == expected.nonce
    assert lab_identity.tree_sha256 == expected.tree_sha256
    assert lab_identity.extension_sha256 == expected.extension_sha256 != ""
""")

    ran = real.run("lab", "test", "--kernel", "6.12")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_before": "passed",
        "test_panic": "splat",
        "test_exit": "lost",
        "test_after": "passed",
    }
    assert "Kernel panic" in ran.why("test_panic")
    assert ran.results is not None
    assert [] == ran.results["faults"], "its boot and its probe are without a complaint"
    assert "sysrq triggered crash" in (ran.files / "kernel.log").read_text()
    assert "lab: end" in (ran.files / "guest-2/kernel.log").read_text()
    assert [] == machines(ran.files.resolve())


def test_virtme_ng_brings_the_same_verdicts(real: Little) -> None:
    """`lab test --launcher vng`: this machine's files are the root, and the tests still run from
    the pushed tree on the kernel that was asked for, with everything proved, found and reported as
    in a guest of the lab's own."""
    real.tests(f"""{COMPLAIN}
@pytest.mark.needs("INC", "BUNDLE", "NAPI")
def test_identity(lab_identity):
    expected = lab_identity.expected
    assert lab_identity.release == os.uname().release == expected.release
    assert expected.kernel.startswith("6.12.") and "cloud" not in expected.release
    assert lab_identity.nonce == expected.nonce
    assert lab_identity.tree_sha256 == expected.tree_sha256
    assert lab_identity.extension_sha256 == expected.extension_sha256 != ""
    assert os.getcwd() == "/tmp/lab-tree"
    with open("/proc/mounts") as mounts:
        assert "9p" in [line.split()[2] for line in mounts if line.split()[1] == "/"]
def test_complaint(): complain()
def test_panic():
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("c")
    time.sleep(600)
def test_after(): pass
""")

    ran = real.run("lab", "test", "--launcher", "vng", "--kernel", "6.12")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_identity": "passed",
        "test_complaint": "splat",
        "test_panic": "splat",
        "test_after": "passed",
    }
    assert "Kernel panic" in ran.why("test_panic")
    assert ran.results is not None
    assert [] == ran.results["faults"], "its boot and its probe are without a complaint"
    assert ran.results["launcher"] == "vng"
    assert all(guest["accel_reason"] for guest in ran.results["guests"])
    assert 2 == len(ran.results["guests"])
    assert "booted by virtme-ng, with this machine's files as root" in ran.output
    assert "LAUNCHER=vng" in ran.output
    assert ran.files.resolve().name.endswith("-vng")
    until(lambda: [] == machines(ran.files.resolve()), "its QEMUs are gone")


def test_kernel_warning_in_a_real_guest_is_a_splat(real: Little) -> None:
    """What the kernel itself says while a test runs reaches the host before the test's verdict;
    what a test writes into the log in its likeness is nothing."""
    real.tests(f"""{COMPLAIN}
def test_before(): pass
def test_complaint(): complain()
def test_forged():
    with open("/dev/kmsg", "w") as log:
        log.write("<4>WARNING: CPU: 0 PID: 1 at a/test.c:1")
def test_after(): pass
""")

    ran = real.run("lab", "test", "--kernel", "6.12")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_before": "passed",
        "test_complaint": "splat",
        "test_forged": "passed",
        "test_after": "passed",
    }
    assert "Out of memory: Killed process" in ran.why("test_complaint")


def test_each_use_after_free_in_a_debug_guest_is_a_splat_of_its_test(real: Little) -> None:
    """KASAN speaks of the second one, too; the lines are in the test's own part of the report."""
    try:
        resolve("6.12+debug")
    except KernelUnavailable as error:
        pytest.skip(f"{error}; to build it takes 20 minutes of a processor")
    real.tests("""
import ctypes
from pathlib import Path
def provoke(crash):
    door = Path("/sys/kernel/debug/provoke-crash/DIRECT")
    if not door.exists():
        assert 0 == ctypes.CDLL(None).mount(b"debugfs", b"/sys/kernel/debug", b"debugfs", 0, None)
    door.write_text(crash)
def test_before(): pass
def test_read(): provoke("READ_AFTER_FREE")
def test_between(): pass
def test_write(): provoke("WRITE_AFTER_FREE")
def test_after(): pass
""")

    ran = real.run("lab", "test", "--kernel", "6.12+debug")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_before": "passed",
        "test_read": "splat",
        "test_between": "passed",
        "test_write": "splat",
        "test_after": "passed",
    }
    for test, what in (("test_read", "READ_AFTER_FREE"), ("test_write", "WRITE_AFTER_FREE")):
        assert f"BUG: KASAN: slab-use-after-free in lkdtm_{what}" in ran.why(test)
        assert f"]  lkdtm_{what}+" in ran.output, "its line in the call trace"


def test_interrupt_leaves_no_machine(real: Little) -> None:
    """Ctrl-C while a real guest runs a test is 130, and its QEMU is gone."""
    real.tests("def test_hang(): time.sleep(3600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "test", "--kernel", "6.12"],
        cwd=real.root,
        env=real.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    latest = real.root / "lab-results/latest"
    deadline = time.monotonic() + 300
    while not ((latest / "console.log").exists() and _says(latest / "console.log", "lab: start 1")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    running = machines(latest.resolve())
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 130, output
    assert len(running) == 1
    assert [] == machines(latest.resolve())


def _says(path: Path, words: str) -> bool:
    return words in path.read_text(errors="replace")
