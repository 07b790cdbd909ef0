# SPDX-License-Identifier: MIT
"""Kernels from sources: what is built is a kernel, and nothing that is half built ever is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from lab import cache, tools
from lab.building import equipment
from lab.cli import main
from lab.errors import KernelUnavailable, MissingTool, UsageError
from lab.facts.kernel import Flavour, Kernel
from lab.kernels import built, choice, lock, obtain, offered, resolve
from lab.kernels.debian import Debian
from lab.kernels.mainline import Mainline
from lab.kernels.planning import planned
from lab.report import markdown
from tests.lab.kbuild_support import commit, lab_process, make_tree, snapshot
from tests.lab.test_kernels_sources import Repository, repository

pytestmark = pytest.mark.lab

__all__ = ["repository"]  # a fixture
WHOLE = 4
"""How many files a build of all compiles."""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a machine with all that a build takes, and calls of make counted."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_KERNEL_DIR", raising=False)
    monkeypatch.delenv("FAKE_DURING", raising=False)
    monkeypatch.setattr(choice, "_RESOLVED", {})
    monkeypatch.setattr(lock, "LOCK", None)
    monkeypatch.setattr(equipment, "check", lambda: None)
    for kind in (Debian, Mainline):
        monkeypatch.setattr(kind, "listing", lambda _, **__: ())
        monkeypatch.setattr(kind, "matching", lambda *_, **__: ())
    counted = tmp_path / "calls"
    counted.touch()
    monkeypatch.setenv("FAKE_CALLS", str(counted))
    return counted


@pytest.fixture
def tree(tmp_path: Path, calls: Path) -> Path:
    """A fake kernel's sources."""
    del calls
    return make_tree(tmp_path / "linux")


def build(*words: str | Path) -> int:
    """The exit code of `lab kernels build`."""
    return main(["kernels", "build", *map(str, words)])


def compiled() -> int:
    """How many files the last build compiled, by make's own output."""
    logs = [p for p in cache.root().glob("building/*/objects-*.log") if p.stat().st_size]
    return len(re.findall(r"^  CC ", max(logs, key=os.path.getmtime).read_text(), re.M))


def nothing_built() -> bool:
    """Whether no kernel came of it, not even a part of one in a place of the cache."""
    root = cache.root()
    return not built.records() and not any(
        path for name in ("built", "packages", "kernels") for path in root.glob(f"{name}/*")
    )


# -- what is built -------------------------------------------------------------------------------


def test_tree_becomes_a_kernel(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(tree)
    assert 0 == build("--tree", tree), capsys.readouterr().err
    shown = capsys.readouterr()
    assert before == snapshot(tree), "the sources were written to"

    kernel = resolve("6.10.0")
    assert ("6.10", "6.10.0", "6.10.0-lab", "built") == (
        *(kernel.series, kernel.upstream, kernel.release, kernel.source),
    )
    assert kernel.package in shown.out
    assert f"--kernel {kernel.package}" in shown.err
    files = obtain(kernel)
    config = files.config.read_text().splitlines()
    assert {"CONFIG_VETH=y", "CONFIG_PVH=y", 'CONFIG_LOCALVERSION="-lab"'} <= set(config)
    assert "CONFIG_USERFAULTFD=y" in config, "the reproducer of IOX-ERR-032 takes it"
    assert b"6.10.0-lab (a fake)" in files.vmlinuz.read_bytes()
    assert (files.modules / "kernel/mod.ko").is_file()
    assert "strip=1\n" == (files.modules / "modules.order").read_text()
    assert not (files.modules / "build").is_symlink()
    assert str(tree) in kernel.verified_by


@pytest.mark.parametrize(
    "name", ["6.10", "v6.10.0", "6.10.0-lab", pytest.param("", id="its package")]
)
def test_built_kernel_is_chosen_by_name(name: str, tree: Path) -> None:
    assert 0 == build("--tree", tree)
    (kernel,) = built_kernels()
    assert kernel == resolve(name or kernel.package)


def built_kernels() -> list[Kernel]:
    return [record.release.kernel for record in built.records()]


def test_list_says_built(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == build("--tree", tree)
    capsys.readouterr()
    assert 0 == main(["kernels", "list"])
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "6.10.0" in line]
    assert ["6.10.0-lab", "built", "built", "cached"] == row[2:]
    # A sweep over what archives have released is not about somebody's own.
    assert "built" not in {kernel.source for kernel in offered()}


def test_second_build_is_none(tree: Path, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == build("--tree", tree)
    calls.write_text("")
    assert 0 == build("--tree", tree)
    assert "" == calls.read_text(), "make was called"
    assert "was built before" in capsys.readouterr().err
    assert 1 == len(built.records())


def test_only_what_has_changed_is_compiled(tree: Path) -> None:
    assert 0 == build("--tree", tree)
    assert WHOLE == compiled()
    (first,) = built_kernels()
    (tree / "kernel/fork.c").write_text("int other = 2;\n")
    assert 0 == build("--tree", tree)
    assert compiled() < WHOLE
    assert 2 == len({kernel.package for kernel in built_kernels()})
    # The last one is what the version means; the first is still there by its own name.
    assert first != resolve("6.10.0-lab")
    assert first == resolve(first.package)


def test_file_with_an_old_time_is_compiled_all_the_same(tree: Path) -> None:
    assert 0 == build("--tree", tree)
    file = tree / "kernel/fork.c"
    file.write_text("int other = 2;\n")
    os.utime(file, (1e9, 1e9))
    assert 0 == build("--tree", tree)
    assert WHOLE == compiled()


def test_compiler_is_called_by_ccache_where_there_is_one(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 == build("--tree", tree, "--set", "PARENT=y")
    directory = tmp_path / "with"
    directory.mkdir()
    script = directory / "ccache"
    script.write_text(f'#!/bin/sh\necho >> {tmp_path}/used\nexec "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    assert 0 == build("--tree", tree)
    assert WHOLE == len((tmp_path / "used").read_text().splitlines())
    # It makes no other kernel.
    assert 0 == build("--tree", tree, "--set", "PARENT=y")
    assert 2 == len(built.records())


def test_environment_changes_no_kernel(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make lab` hands its own flags down, and a shell may have some for other programs."""
    for name, value in (
        ("MAKEFLAGS", "n"),
        ("CC", "/bin/false"),
        ("VERSION", "1.2.3"),
        ("ARCH", "arm64"),
        ("LOCALVERSION", "-mine"),
        ("KCFLAGS", "-DBROKEN"),
        ("GIT_DIR", "/nowhere"),
    ):
        monkeypatch.setenv(name, value)
    assert 0 == build("--tree", tree)
    assert ["6.10.0-lab"] == [kernel.release for kernel in built_kernels()]
    assert WHOLE == compiled()


def test_settings_and_flavour_make_another_kernel(tree: Path) -> None:
    assert 0 == build("--tree", tree)
    assert 0 == build("--tree", tree, "--set", "PARENT=y", "--set", "CONFIG_CHILD=y")
    assert 0 == build("--tree", tree, "--flavour", "debug")
    config = obtain(resolve("6.10+debug")).config.read_text()
    assert "CONFIG_KASAN=y" in config
    assert 3 == len({kernel.package for kernel in built_kernels()})


def test_debug_kernel_is_had_by_its_own_name_only(tree: Path) -> None:
    assert 0 == build("--tree", tree, "--flavour", "debug")
    for name in ("6.10+debug", "6.10.0+debug", "6.10.0-lab-debug"):
        kernel = resolve(name)
        assert ("6.10.0-lab-debug", Flavour.DEBUG) == (kernel.release, kernel.flavour)
    with pytest.raises((UsageError, KernelUnavailable)):
        resolve("6.10.0")
    with pytest.raises(KernelUnavailable, match="kernels build --flavour debug"):
        resolve("6.12+debug")


def test_plan_for_any_machine_has_no_built_kernel(tree: Path) -> None:
    assert 0 == build("--tree", tree)
    for name in ("6.10.0-lab", "6.12+debug"):
        with pytest.raises(UsageError, match="was built here"):
            planned([name])


def test_package_that_is_damaged_is_built_again(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == build("--tree", tree)
    (record,) = built.records()
    package = built.place_of(record.release.files[0])
    with package.open("r+b") as file:
        file.seek(3000)
        file.write(b"\xff")
    shutil.rmtree(cache.root() / "kernels")
    with pytest.raises(KernelUnavailable, match="build it again"):
        obtain(record.release.kernel)
    assert 0 == build("--tree", tree), capsys.readouterr().err
    assert record.release.kernel == obtain(resolve("6.10.0-lab")).kernel


def test_prune_takes_object_files_and_leaves_the_kernel(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == build("--tree", tree)
    (workshop,) = (cache.root() / "building").iterdir()
    os.utime(workshop / "place", (1e9, 1e9))
    assert 0 == main(["kernels", "prune", "--days", "30"])
    assert not workshop.exists()
    assert 0 == main(["kernels", "verify"])
    assert "6.10.0-lab" == resolve("6.10.0-lab").release
    assert 0 == build("--tree", tree)
    assert "was built before" in capsys.readouterr().err


# -- git -----------------------------------------------------------------------------------------


def test_commits_of_a_repository(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(tree, "one")
    (tree / "kernel/fork.c").write_text("int other = 2;\n")
    second = commit(tree, "two")
    (tree / ".config").touch()  # as after a build in the tree: its commits are clean
    before = snapshot(tree)
    assert 0 == build("--git", tree, "--ref", "one"), capsys.readouterr().err
    assert WHOLE == compiled()
    assert 0 == build("--git", tree, "--ref", "main")
    assert compiled() < WHOLE
    assert before == snapshot(tree), "the repository was written to"
    one, two = sorted(built.records(), key=lambda record: record.made)
    assert "one of" in one.facts["sources"]
    assert second[:12] in two.release.kernel.verified_by
    # A file that somebody puts into the lab's own copy is in no commit.
    (workshop,) = (cache.root() / "building").iterdir()
    (workshop / "tree/kernel/fork.c").write_text("#error not mine\n")
    (workshop / "tree/kernel/more.c").touch()
    assert 0 == build("--git", tree, "--ref", "two", "--set", "PARENT=y")
    assert not (workshop / "tree/kernel/more.c").exists()


def test_repository_elsewhere(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(tree, "one")
    address = f"file://{tree}"
    assert 0 == build("--git", address, "--ref", "one"), capsys.readouterr().err
    assert 2 == build("--git", address, "--ref", "v9")
    assert "there is no ref 'v9'" in capsys.readouterr().err
    assert 3 == build("--git", f"file://{tmp_path}/gone", "--ref", "v9")
    assert "does not give v9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--git", "{tree}", "--ref", "v9.9"), "there is no commit 'v9.9'"),
        (("--git", "{tree}", "--ref=--all"), "--ref '--all' is no ref"),
        (("--git", "{tree}"), "--git needs --ref"),
        (("--git", "{tree}/../nowhere", "--ref", "v1"), "there is no such directory"),
        (("--git", "{tree}/..", "--ref", "v1"), "is no repository"),
        (("--tree", "{tree}", "--ref", "v1"), "--ref goes with --git"),
        (("--tree", "{tree}/kernel"), "is no kernel tree"),
        (("--tree", "{tree}/nowhere"), "is no directory"),
        (("--tree", "{tree}/Makefile"), "is no directory"),
        (("--debian", "linux-image-6.12"), "is no source package"),
        (("--tree", "{tree}", "--set", "kasan"), "is not SYMBOL=VALUE"),
        (("--tree", "{tree}", "--set", "NOWHERE=y"), "no Kconfig of this tree has it"),
        (
            ("--tree", "{tree}", "--set", "CHILD=y"),
            "CONFIG_CHILD=y came out as not set: it depends on PARENT && IO_URING, of which not set"
            ": PARENT",
        ),
        (
            ("--tree", "{tree}", "--set", "INNER=y"),
            "it depends on OUTER && NET && (PARENT || IPV6), of which not set: OUTER, PARENT",
        ),
        (
            ("--tree", "{tree}", "--set", "NR_OF=y"),
            "CONFIG_NR_OF=y came out as not set: no Kconfig of this tree has it",
        ),
    ],
)
def test_request_that_cannot_be_meant_is_2(
    words: tuple[str, ...], sentence: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(tree, "one")
    assert 2 == build(*(word.format(tree=tree) for word in words))
    (last,) = [line for line in capsys.readouterr().err.splitlines() if sentence in line]
    assert last.startswith("lab: ")
    assert nothing_built()


@pytest.mark.parametrize("name", [".config", "include/config", "arch/x86/include/generated"])
def test_tree_that_is_not_clean_is_2(
    name: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / name).mkdir(parents=True)
    assert 2 == build("--tree", tree)
    told = capsys.readouterr().err
    assert f"it holds {name} of a build of its own" in told
    assert "make mrproper" in told


@pytest.mark.parametrize("version", ["", "'a b'", "../../x"])
def test_tree_with_no_version_is_2(
    version: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tree / "Makefile").read_text().replace("VERSION = 6.10.0", f"VERSION = {version}")
    (tree / "Makefile").write_text(text)
    assert 2 == build("--tree", tree)
    assert "is no kernel tree" in capsys.readouterr().err
    assert nothing_built()


# -- Debian's source packages ---------------------------------------------------------------------


def source_package(tmp_path: Path, name: str, tree: Path) -> bytes:
    """A package as Debian makes them of a kernel's sources."""
    root = tmp_path / f"package-{name}"
    place = root / "usr/src" / f"{name}.tar.xz"
    place.parent.mkdir(parents=True)
    # Times of long ago, as in a real one.
    words: list[str | Path] = [
        "--mtime=@1000000000",
        f"--transform=s,^[.],{name},",
        "-C",
        tree,
        ".",
    ]
    tools.run(["tar", "-cJf", place, *words], what="packing sources")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: n <e@x>\nDescription: it\n"
    )
    made = tmp_path / f"{name}.deb"
    tools.run(["dpkg-deb", "--build", root, made], what="making a package")
    return made.read_bytes()


def test_source_package_of_the_archive(
    tree: Path,
    repository: Repository,
    tmp_path: Path,
    calls: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = source_package(tmp_path / "one", "linux-source-6.10", tree)
    (tree / "kernel/fork.c").write_text("int other = 2;\n")
    second = source_package(tmp_path / "two", "linux-source-6.10", tree)
    names = [f"linux-source-6.10_6.10.{n}-1" for n in (9, 11)]
    contents = dict(zip(names, (first, second), strict=True))
    repository.suite("trixie", names[:1], contents=contents)
    repository.suite("sid", [*names[1:], "linux-source-6.9_6.9.1-1"], contents=contents)

    assert 0 == build("--debian", "linux-source-6.10=6.10.9-1"), capsys.readouterr().err
    assert 0 == build("--debian", "linux-source-6.10")
    # The files of both have the same old times: nothing of the first may be left in the second.
    assert WHOLE == compiled()
    old, new = sorted(built.records(), key=lambda record: record.made)
    assert "Debian's linux-source-6.10 6.10.9-1" == old.facts["sources"]
    assert "Debian's linux-source-6.10 6.10.11-1" == new.facts["sources"]
    calls.write_text("")
    assert 0 == build("--debian", "linux-source-6.10")
    assert "" == calls.read_text(), "make was called"

    assert 2 == build("--debian", "linux-source-6.10=6.10.10-1")
    assert "no version 6.10.10-1 of linux-source-6.10 (it has 6.10.9-1, 6.10.11-1)" in (
        capsys.readouterr().err
    )
    assert 2 == build("--debian", "linux-source-7.9")
    assert "(it has linux-source-6.9, linux-source-6.10)" in capsys.readouterr().err


# -- in reports ----------------------------------------------------------------------------------


def test_reports_say_that_it_was_built(tree: Path) -> None:
    assert 0 == build("--tree", tree)
    assert 0 == build("--tree", tree, "--flavour", "debug")
    titles = [resolve(name).title for name in ("6.10.0-lab", "6.10+debug")]
    assert ["6.10.0 built", "6.10.0+debug built"] == titles
    kernel = resolve("6.10.0-lab")
    leg = {
        "kernel": asdict(kernel),
        "guests": [],
        "proved": 0,
        "selected": 0,
        "verdicts": {},
        "exit": {"code": 3, "why": "nothing"},
        "errata": {},
        "probe": None,
    }
    assert "6.10.0-lab, built" in markdown._row("6.10.0 built", leg)


# -- what ends a build ---------------------------------------------------------------------------


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
    """Nothing is written there, so that it cannot be written to is no matter."""
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
