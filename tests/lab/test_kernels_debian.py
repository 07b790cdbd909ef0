# SPDX-License-Identifier: MIT
"""The Debian source when nothing answers, and when a tool is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab import tools
from lab.errors import KernelUnavailable, LabError, MissingTool, UsageError
from lab.kernels import apt, choice, listing, obtain, resolve
from lab.kernels.catalogue import catalogue
from lab.kernels.debian import _files, _upstream
from lab.kernels.model import KernelFiles, Release, RemoteFile
from lab.kernels.source import FileGone
from lab.vm import build_rootfs, choose_accel, qemu

pytestmark = pytest.mark.lab

NOBODY = "http://127.0.0.1:9/debian"
"""The discard port: nothing listens there."""


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


def test_an_unreachable_mirror_is_told_with_what_is_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No mirror and an empty cache: code 3, what was tried, what is cached, a way out."""
    monkeypatch.setenv("LAB_DEBIAN_MIRROR", NOBODY)
    with pytest.raises(KernelUnavailable) as caught:
        obtain(resolve("6.12"))
    sentence = str(caught.value)
    assert 3 == caught.value.exit_code
    assert NOBODY in sentence
    assert "in the cache: nothing" in sentence
    assert "LAB_DEBIAN_MIRROR" in sentence


def test_the_command_line_gives_the_error_its_code() -> None:
    """python -m lab kernels: 2 for an unknown name, a sentence and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", "kernels", "fetch", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == done.returncode
    assert done.stderr.startswith("lab: unknown kernel 'nonsense' (known are 6.1, 6.6, 6.10, 6.12")


def test_a_file_that_has_left_the_pool_is_replaced_and_said_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The newest of the series comes instead, unlocked, with a warning."""
    locked = resolve("6.12")
    newer = replace(locked, upstream="6.12.999", release="6.12.999+deb13-cloud-amd64", locked=False)

    class Moved:
        """A source that only has a newer release."""

        name = "debian"

        def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
            assert fresh
            return (Release(newer, "trixie", (RemoteFile("new", 1, "0" * 64),)),)

        def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
            assert "6.12" == wanted
            return self.listing(fresh=fresh)

        def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
            raise FileGone(f"404 {file.name} {into} {suite}")

        def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
            raise AssertionError((packages, release, tree))

    def files_of(release: Release, source: Moved, **_: object) -> KernelFiles:
        if release.kernel.locked:
            source.download(release.files[0], tmp_path, suite=release.suite)
        return KernelFiles(release.kernel, tmp_path, tmp_path, tmp_path, tmp_path)

    monkeypatch.setitem(choice.SOURCES, "debian", Moved())
    monkeypatch.setattr("lab.kernels.store.files_of", files_of)
    files = obtain(locked)
    assert files.kernel == replace(newer, replaces=locked.release)
    assert (
        f"{locked.release} has left debian: taking 6.12.999+deb13-cloud-amd64, not the locked "
        "release; `python -m lab kernels update 6.12` locks it"
    ) in caplog.text
    assert "not the locked release" in str(files.kernel)
    monkeypatch.setattr(Moved, "matching", lambda *_, **_more: ())
    with pytest.raises(LabError) as raised:
        obtain(locked)
    assert "debian has no other 6.12: `python -m lab kernels update` locks what there is" in str(
        raised.value
    )


def test_updating_an_unknown_series_is_a_usage_error() -> None:
    """`update nonsense` names the series there are, and writes nothing."""
    with pytest.raises(UsageError, match="unknown kernel 'nonsense'"):
        choice.locked_now(["nonsense"])


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("6.12.107-1", "6.12.107"),
        ("6.12.94-1~bpo12+1", "6.12.94"),
        ("6.1.176-1", "6.1.176"),
        ("7.3~rc4-1~exp1", "7.3"),
    ],
)
def test_the_upstream_version_is_read_from_the_package_version(version: str, upstream: str) -> None:
    """Debian's revision and backport suffix are no part of the kernel's version."""
    assert _upstream(version) == upstream


def test_a_metapackage_is_replaced_by_the_three_that_hold_the_files() -> None:
    """From 6.19 on linux-image-RELEASE is empty: base, binary and modules are fetched; what has
    left the index is taken from where the archive keeps it, with no hash to go by."""

    def fields(name: str) -> dict[str, str]:
        return {
            "Package": name,
            "Version": "7.3.4-1",
            "Filename": f"pool/{name}.deb",
            "Size": "5",
            "SHA256": "0" * 64,
        }

    names = [f"linux-{part}-7.3.4" for part in ("image", "base", "binary", "modules")]
    packages = {name: fields(name) for name in names}
    image = packages["linux-image-7.3.4"]
    assert [
        "linux-base-7.3.4.deb",
        "linux-binary-7.3.4.deb",
        "linux-modules-7.3.4.deb",
    ] == [file.name for file in _files(packages, image, "7.3.4")]
    del packages["linux-modules-7.3.4"]
    lost = RemoteFile("pool/main/l/linux/linux-modules-7.3.4_7.3.4-1_amd64.deb", 0, "")
    assert lost == _files(packages, image, "7.3.4")[-1]
    assert ["linux-image-7.3.4.deb"] == [
        file.name for file in _files({image["Package"]: image}, image, "7.3.4")
    ]


@pytest.mark.parametrize(
    ("program", "package"), sorted(tools.PACKAGES.items()), ids=sorted(tools.PACKAGES)
)
def test_a_missing_program_is_one_sentence_with_its_package(
    monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    """What is not installed is told with the package to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTool) as caught:
        tools.find(program)
    sentence = f"the program {program} is not installed; it comes in the package {package}"
    fedora = tools.FEDORA.get(package, package)
    assert f"{sentence} (apt-get install {package}; on Fedora dnf install {fedora})" == str(
        caught.value
    )


def test_no_guest_boots_without_the_programs_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A PATH without QEMU and mkfs.erofs ends in those sentences, before anything is started."""
    monkeypatch.setenv("LAB_ACCEL", "tcg")
    monkeypatch.setattr(tools, "_SYSTEM_DIRECTORIES", "/nonexistent")
    few = tmp_path / "bin"
    few.mkdir()
    for program in ("busybox", "kmod"):
        (few / program).symlink_to(tools.find(program))
    monkeypatch.setenv("PATH", str(few))
    files = KernelFiles(resolve("6.12"), few, few, few, few)
    qemu.version.cache_clear()
    with pytest.raises(MissingTool, match="qemu-system-x86"):
        choose_accel(files)
    with pytest.raises(MissingTool, match="the package erofs-utils"):
        build_rootfs()


def test_the_catalogue_names_only_sources_there_are() -> None:
    """Every series can be asked for."""
    assert {row.source for row in catalogue()} <= set(choice.SOURCES)


def test_apt_is_asked_for_its_mirror_again_only_when_something_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It takes apt a second to say what seldom changes. An answer that was tampered with, or is
    hours old, is none."""
    settings = tmp_path / "apt"
    (settings / "sources.list.d").mkdir(parents=True)
    sources = settings / "sources.list.d/a.sources"
    sources.write_text("one")
    monkeypatch.setattr(apt, "_SETTINGS", settings)
    monkeypatch.setattr(apt, "_LISTS", tmp_path / "lists")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    for name in ("LAB_DEBIAN_MIRROR", "LAB_DEBIAN_SECURITY_MIRROR", "APT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    asked: list[int] = []

    def answer() -> str:
        asked.append(1)
        return f"Packages|Debian|http://mirror-{len(asked)}/debian\n"

    monkeypatch.setattr(apt, "_targets", answer)
    place = tmp_path / "cache/listings/mirrors.txt"

    def mirror() -> str:
        return apt.mirror("debian").partition("mirror-")[2].partition("/")[0]

    assert [mirror(), mirror()] == ["1", "1"]
    sources.write_text("another")
    assert [mirror(), mirror()] == ["2", "2"]
    (settings / "sources.list.d/b.sources").touch()
    assert [mirror(), mirror()] == ["3", "3"]
    (tmp_path / "lists").mkdir()
    assert [mirror(), mirror()] == ["4", "4"]
    place.write_text(place.read_text().replace("mirror-4", "mirror-9"))
    assert [mirror(), mirror()] == ["5", "5"]
    old = time.time() - listing.FRESH_S - 1
    os.utime(place, (old, old))
    assert [mirror(), mirror()] == ["6", "6"]
