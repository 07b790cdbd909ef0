# SPDX-License-Identifier: MIT
"""Kernels from sources: what is built is a kernel, is kept, and is had by its name."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from lab import cache, tools
from lab.cli import main
from lab.errors import KernelUnavailable, UsageError
from lab.facts.kernel import Flavour, Kernel
from lab.kernels import built, obtain, offered, resolve
from lab.kernels.planning import planned
from lab.report import markdown
from tests.lab.kbuild_support import (
    WHOLE,
    build,
    calls_fixture,
    commit,
    compiled,
    nothing_built,
    snapshot,
    tree_fixture,
)
from tests.lab.test_kernels_sources import Repository, repository

pytestmark = pytest.mark.lab

__all__ = ["calls_fixture", "repository", "tree_fixture"]  # fixtures


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
