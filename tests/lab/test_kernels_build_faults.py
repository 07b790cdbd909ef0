# SPDX-License-Identifier: MIT
"""Builds that fail, are interrupted, or meet another: nothing that is half built is ever used."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import cache
from lab.building import equipment
from lab.errors import MissingTool
from lab.kernels import built, resolve
from tests.lab.kbuild_support import (
    WHOLE,
    build,
    calls_fixture,
    compiled,
    lab_process,
    nothing_built,
    tree_fixture,
)

pytestmark = pytest.mark.lab

__all__ = ["calls_fixture", "tree_fixture"]  # fixtures


def test_symbol_that_the_lab_needs_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kconfig = (tree / "Kconfig").read_text()
    (tree / "Kconfig").write_text(kconfig.replace("config EROFS_FS\n", "config EROFS_OLD\n"))
    assert 3 == build("--tree", tree)
    told = capsys.readouterr().err
    assert "CONFIG_EROFS_FS=y came out as not set: no Kconfig of this tree has it" in told
    assert nothing_built()


def test_everything_that_is_missing_is_one_sentence(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    installed = equipment._installed
    gone = {"flex", "bc"}
    monkeypatch.setattr(equipment, "_installed", lambda name: name not in gone and installed(name))
    monkeypatch.setattr(equipment, "_included", lambda name: name != "gelf.h")
    with pytest.raises(MissingTool) as raised:
        equipment.check()
    assert "lacks flex, bc, gelf.h" in str(raised.value)
    assert "apt-get install flex bc libelf-dev;" in str(raised.value)
    gone.add("gcc")
    assert 3 == build("--tree", tree)
    told = capsys.readouterr().err
    assert "lacks gcc, flex, bc (" in told, "without a compiler nothing is known of headers"
    assert nothing_built()


def test_compiler_error_is_told(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "kernel/fork.c").write_text("#error out of order\n")
    assert 3 == build("--tree", tree)
    told = capsys.readouterr().err
    assert "error: #error out of order" in told
    log = re.search(r"(/\S+\.log) has all that it said", told)
    assert log is not None
    assert "out of order" in Path(log[1]).read_text()
    assert nothing_built()


def test_build_that_fails_after_a_good_one_adds_no_kernel(tree: Path) -> None:
    """The image of the good one is still there."""
    assert 0 == build("--tree", tree)
    (tree / "kernel/fork.c").write_text("#error out of order\n")
    assert 3 == build("--tree", tree)
    assert 1 == len(built.records())


def test_full_disk_is_told_and_the_build_goes_on(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DURING", "cat Makefile > /dev/full || exit 1")
    assert 3 == build("--tree", tree)
    assert "the disk of the lab's cache is full" in capsys.readouterr().err
    assert nothing_built()
    monkeypatch.delenv("FAKE_DURING")
    assert 0 == build("--tree", tree)
    assert 2 == compiled(), "what had been compiled was compiled again"


def test_disk_that_is_full_while_it_is_packed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(_: Path, package: Path) -> None:
        package.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(built, "pack", cut)
    assert 3 == build("--tree", tree)
    assert "the disk of the lab's cache is full" in capsys.readouterr().err
    assert nothing_built()
    assert [] == list((cache.root() / "scratch").iterdir())


def test_tree_that_changes_while_it_is_built(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DURING", f"echo >> {tree}/init/main.c")
    assert 3 == build("--tree", tree)
    assert "has changed while it was built: init/main.c" in capsys.readouterr().err
    assert nothing_built()
    monkeypatch.delenv("FAKE_DURING")
    assert 0 == build("--tree", tree)
    assert WHOLE == compiled()


def test_image_of_another_release_is_refused(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tree / "scripts/image.py"
    script.write_text(script.read_text().replace("{release} (", "6.9.9 ("))
    assert 3 == build("--tree", tree)
    assert "calls itself '6.9.9', and make '6.10.0-lab'" in capsys.readouterr().err
    assert nothing_built()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not come")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs by the names of those that a build takes, for labs in processes of their own."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for need in equipment.PROGRAMS:
        if shutil.which(need.name) is None:
            (directory / need.name).symlink_to("/bin/false")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{directory}")


HELD = (
    # At most about two minutes: a test that fails leaves nothing behind that nobody ends.
    "touch {0}/begun; n=0; "
    "while [ ! -e {0}/go ] && [ $n -lt 2400 ]; do sleep 0.05; n=$((n+1)); done"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("on_path")
def test_interrupt_ends_make_and_the_next_build_goes_on(
    number: signal.Signals, tree: Path, tmp_path: Path
) -> None:
    # What does not hear a polite end is ended all the same.
    deaf = "trap '' TERM; " if number == signal.SIGTERM else ""
    during = f"{deaf}{HELD.format(tmp_path)}; touch {tmp_path}/after"
    process = lab_process(["kernels", "build", "--tree", str(tree)], {"FAKE_DURING": during})
    wait_for(tmp_path / "begun")
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert 130 == process.returncode, told
    assert "interrupted; the same command goes on" in told
    assert nothing_built()
    (tmp_path / "go").touch()
    time.sleep(0.3)
    assert not (tmp_path / "after").exists(), "what make had started went on"
    assert 0 == build("--tree", tree)
    assert 2 == compiled()


def test_build_is_as_nice_as_its_caller(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is scheduled with the session of its caller; a Ctrl-C there is not for it."""
    monkeypatch.setenv("FAKE_DURING", f"cut -d' ' -f5,6 /proc/self/stat > {tmp_path}/whose")
    assert 0 == build("--tree", tree)
    group, session = map(int, (tmp_path / "whose").read_text().split())
    assert os.getsid(0) == session, "a session of its own"
    assert os.getpgid(0) != group


@pytest.mark.usefixtures("on_path")
def test_tree_on_a_read_only_mount_is_built(tree: Path) -> None:
    """A build writes nothing into the sources, so a read-only mount does not stop it."""
    script = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 9; '
        'touch "$0/written" 2>/dev/null && exit 8; '
        f'exec {sys.executable} -m lab kernels build --tree "$0"'
    )
    own = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *own, "sh", "-c", script, tree],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "6.10.0-lab" == resolve("6.10.0").release


@pytest.mark.usefixtures("on_path")
def test_two_builds_of_one_tree_follow_each_other(tree: Path, tmp_path: Path, calls: Path) -> None:
    words = ["kernels", "build", "--tree", str(tree)]
    first = lab_process(words, {"FAKE_DURING": HELD.format(tmp_path)})
    wait_for(tmp_path / "begun")
    second = lab_process(words, {})
    assert second.stdout is not None
    assert "waiting for its end" in second.stdout.readline()
    (tmp_path / "go").touch()
    for process in (first, second):
        told, _ = process.communicate(timeout=60)
        assert 0 == process.returncode, told
    assert "was built before" in told
    assert 1 == calls.read_text().count("bzImage")


@pytest.mark.usefixtures("on_path")
def test_lab_that_is_killed_keeps_its_lock_until_make_is_gone(tree: Path, tmp_path: Path) -> None:
    # A make that nothing ends: without setpriv no signal comes when its parent dies.
    during = f"trap '' TERM; {HELD.format(tmp_path)}"
    words = ["kernels", "build", "--tree", str(tree)]
    first = lab_process(words, {"FAKE_DURING": during})
    wait_for(tmp_path / "begun")
    first.kill()
    first.communicate()
    second = lab_process(words, {})
    assert second.stdout is not None
    assert "waiting for its end" in second.stdout.readline()
    (tmp_path / "go").touch()
    told, _ = second.communicate(timeout=60)
    assert 0 == second.returncode, told
    assert "files compiled" in told
