# SPDX-License-Identifier: MIT
"""The mainline source against an archive of its layout: what is signed is booted, and else nothing.

The archive itself is not reachable from the machines this was written on.
"""

from __future__ import annotations

import http.server
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import cache, kernels, tools, vm
from lab.errors import KernelUnavailable
from lab.kernels import Flavour, catalogue, choice
from lab.kernels import http as lab_http
from lab.kernels.mainline import Mainline
from lab.kernels.model import RemoteFile
from lab.kernels.source import FileGone, SourceUnreachable
from lab.packing import decompress_module
from tests.lab.mainline_support import Archive, served

pytestmark = pytest.mark.lab

REST = "_6.6.30-060630.202405021421_amd64.deb"
IMAGE = f"linux-image-unsigned-6.6.30-060630-generic{REST}"
MODULES = f"linux-modules-6.6.30-060630-generic{REST}"
PACKAGES: dict[str, bytes | Path] = {IMAGE: b"image" * 1000, MODULES: b"modules" * 1000}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    root = tmp_path / "archive"
    root.mkdir()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    with served(root) as archive:
        monkeypatch.setenv("LAB_MAINLINE_MIRROR", archive.url)
        monkeypatch.setenv("LAB_MAINLINE_KEY", str(archive.key))
        monkeypatch.setenv("LAB_MAINLINE_FINGERPRINT", archive.fingerprint)
        yield archive
    assert [] == leftovers()


def leftovers() -> list[Path]:
    """What a failed download may not leave in the cache."""
    root = cache.root()
    return [*root.glob("packages/*/*"), *root.glob("kernels/*"), *root.glob("scratch/*")]


@pytest.mark.parametrize("level", ["amd64", "."])
@pytest.mark.parametrize(
    "name", ["6.6", "6.6.30", "6.6.30-060630-generic", "6.6.30-060630.202405021421"]
)
def test_a_release_is_found_by_each_of_its_names(archive: Archive, name: str, level: str) -> None:
    """Series, version, uname -r and package version lead to the two packages of the signed list,
    in today's layout and in the old one without amd64/."""
    archive.add("6.6.9", {}, level=level)
    archive.add("6.6.30", PACKAGES, level=level)
    archive.add("6.6.31", {}, level=level)  # a build that failed has a list of nothing
    (release,) = Mainline().matching(name)
    assert "6.6.30" == release.kernel.upstream
    assert "6.6" == release.kernel.series
    assert "6.6.30-060630-generic" == release.kernel.release
    assert [IMAGE, MODULES] == [file.name for file in release.files]
    assert [5000, 7000] == [file.size for file in release.files]
    assert archive.fingerprint in release.kernel.verified_by
    assert not release.kernel.locked


def test_a_version_the_archive_has_not_is_no_match(archive: Archive) -> None:
    """404 for a version is an answer, no failure."""
    archive.add("6.6.30", PACKAGES)
    assert () == Mainline().matching("6.6.29")
    assert () == Mainline().matching("nonsense")
    with pytest.raises(FileGone, match=r"has no version 6\.7"):
        Mainline().matching("6.7")


def test_a_signature_by_another_key_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good signature by a key whose fingerprint is not the one named counts for nothing, and the
    last digits being the same is not enough."""
    archive.add("6.6.30", PACKAGES)
    other = "0" * 8 + archive.fingerprint[8:]
    monkeypatch.setenv("LAB_MAINLINE_FINGERPRINT", other)
    with pytest.raises(SourceUnreachable, match=f"is not signed by {other}.*nothing of it is used"):
        Mainline().matching("6.6.30")


@pytest.mark.parametrize("what", ["list", "signature", "cut signature", "no signature"])
def test_a_list_that_was_changed_is_refused(archive: Archive, what: str) -> None:
    """One byte of the list or its signature that differs, and nothing is used of either."""
    directory = archive.add("6.6.30", PACKAGES)
    listed, signature = directory / "CHECKSUMS", directory / "CHECKSUMS.gpg"
    assert 1 == len(Mainline().matching("6.6.30", fresh=True))
    match what:
        case "list":
            text = listed.read_text()
            listed.write_text(text.replace("generic", "genera", 1))
        case "signature":
            archive.gpg("--output", signature.with_name("other"), "--detach-sign", archive.key)
            signature.with_name("other").replace(signature)
        case "cut signature":
            signature.write_bytes(signature.read_bytes()[:60])
        case "no signature":
            signature.unlink()
    shutil.rmtree(cache.root() / "listings")
    expected = "CHECKSUMS.gpg: the server says 404" if what == "no signature" else "not signed by"
    with pytest.raises(SourceUnreachable, match=expected):
        Mainline().matching("6.6.30")


@pytest.mark.parametrize("kept", [False, True], ids=["page", "kept"])
def test_a_page_in_place_of_the_key_is_not_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """What a key server, or a proxy before it, says instead of the key is refused and leaves
    nothing: the next time it is asked again, also where such a page was kept once."""
    archive.add("6.6.30", PACKAGES)
    settings = catalogue.read()
    named = replace(settings.mainline, key_url=f"{archive.url}/key-{{fingerprint}}")
    monkeypatch.setattr(catalogue, "read", lambda: replace(settings, mainline=named))
    monkeypatch.delenv("LAB_MAINLINE_KEY")
    served_as = archive.root / f"key-{archive.fingerprint}"
    served_as.write_text("<html>Log in to the network first</html>")
    place = cache.root() / "keys" / f"{archive.fingerprint}.asc"
    if kept:
        place.parent.mkdir()
        shutil.copy(served_as, place)
    with pytest.raises(SourceUnreachable, match=f"is not the key {archive.fingerprint}"):
        Mainline().matching("6.6.30")
    assert kept is place.exists()
    shutil.copy(archive.key, served_as)
    assert 1 == len(Mainline().matching("6.6.30"))
    assert archive.key.read_bytes() == place.read_bytes()


def test_a_package_of_modules_that_is_missing_is_named(archive: Archive) -> None:
    """An image alone cannot be booted: the package that lacks is told by its name."""
    archive.add("6.6.30", {IMAGE: b"image"})
    with pytest.raises(SourceUnreachable, match=f"lacks the package {MODULES}"):
        Mainline().matching("6.6.30")


def resolved() -> kernels.Kernel:
    (release,) = Mainline().matching("6.6.30")
    return release.kernel


def test_a_package_with_another_hash_is_refused(archive: Archive) -> None:
    """Bytes of the right number that are not what was signed are thrown away, with both hashes."""
    directory = archive.add("6.6.30", PACKAGES)
    kernel = resolved()
    (directory / IMAGE).write_bytes(b"forge" * 1000)
    with pytest.raises(KernelUnavailable, match=r"mainline delivered a .*; expected 5000 bytes"):
        kernels.obtain(kernel)


def test_a_package_that_breaks_off_is_refused(archive: Archive) -> None:
    """A connection that ends early is told as such."""
    archive.add("6.6.30", PACKAGES)
    kernel = resolved()

    def cut(handler: http.server.BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "5000")
        handler.end_headers()
        handler.wfile.write(b"image" * 10)
        return True

    archive.instead = cut
    with pytest.raises(KernelUnavailable, match="broke off after 50 "):
        kernels.obtain(kernel)


def test_a_server_that_trickles_is_given_up(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that come too slowly end the download as silence would."""
    archive.add("6.6.30", PACKAGES)
    kernel = resolved()
    monkeypatch.setattr(lab_http, "SMALL_S", -1.0)

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "5000")
        handler.end_headers()
        handler.wfile.write(b"i")
        handler.wfile.flush()
        return True

    archive.instead = trickle
    with pytest.raises(KernelUnavailable, match="is too slow: 1 bytes"):
        kernels.obtain(kernel)


def test_a_server_that_says_nothing_is_given_up(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is not waited for for ever, and one wait is enough for a run."""
    archive.add("6.6.30", PACKAGES)
    monkeypatch.setattr(lab_http, "SILENCE_S", 0.2)
    over: list[bool] = []

    def silent(handler: http.server.BaseHTTPRequestHandler) -> bool:
        handler.connection.settimeout(30)
        over.append(handler.connection.recv(1) == b"")
        handler.close_connection = True
        return True

    archive.instead = silent
    source = Mainline()
    for version in ("6.6.30", "6.6.29"):
        with pytest.raises(SourceUnreachable, match="timed out"):
            source.matching(version)
    assert 1 == len(archive.requests)


def test_a_package_that_is_gone_is_told(archive: Archive) -> None:
    """404 for a package: its address is in the sentence, and the ways out are in the hint."""
    directory = archive.add("6.6.30", PACKAGES)
    kernel = resolved()
    (directory / MODULES).unlink()
    with pytest.raises(KernelUnavailable, match=f"{MODULES}: the server says 404") as caught:
        kernels.obtain(kernel)
    assert "--kernel-file" in caught.value.hint
    assert "LAB_MAINLINE_MIRROR" in caught.value.hint
    # What came whole and true before it may stay.
    for package in cache.root().glob("packages/*"):
        assert [IMAGE] == [path.name for path in package.iterdir()]
        shutil.rmtree(package)


def test_an_answer_of_before_stands_when_the_archive_is_down(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    """Offline, what was resolved before is resolved again, and it is said as of when."""
    archive.add("6.6.30", PACKAGES)
    before = Mainline().matching("6.6.30")

    def broken(handler: http.server.BaseHTTPRequestHandler) -> bool:
        handler.send_error(503)
        return True

    archive.instead = broken
    assert before == Mainline().matching("6.6.30", fresh=True)
    assert "503" in caplog.text
    assert "as of 20" in caplog.text


def test_a_download_of_nothing_that_is_expected(archive: Archive, tmp_path: Path) -> None:
    """A file longer than promised is not written to the end."""
    archive.add("6.6.30", PACKAGES)
    file = RemoteFile(f"v6.6.30/amd64/{IMAGE}", 100, "0" * 64)
    with pytest.raises(SourceUnreachable, match="longer than the 100 bytes expected"):
        Mainline().download(file, tmp_path / "file", suite="v6.6.30")


def repacked(into: Path) -> dict[str, bytes | Path]:
    """Packages as the archive has them, of Debian's full 6.12: image and modules apart, modules
    packed with zstd. Only the modules a guest needs: packing all takes minutes."""
    files = kernels.obtain(kernels.resolve("6.12.107-1", flavour=Flavour.FULL))
    release = files.kernel.release
    image, modules = into / "image", into / "modules"
    (image / "boot").mkdir(parents=True)
    (modules / "boot").mkdir(parents=True)
    shutil.copyfile(files.vmlinuz, image / "boot" / f"vmlinuz-{release}")
    shutil.copyfile(files.config, modules / "boot" / f"config-{release}")
    place = modules / "lib/modules" / release
    place.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(files.modules / name, place / name)
    for wanted in ("virtio_blk", "virtio_net", "erofs", "overlay", "veth"):
        listing = tools.run(
            [
                *("modprobe", "-d", files.modules.parents[2], "-S", release),
                *("--show-depends", wanted),
            ],
            what="looking for modules",
        )
        for line in listing.splitlines():
            if line.startswith("insmod"):
                source = Path(line.split()[1])
                target = (place / source.relative_to(files.modules)).with_suffix("")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(decompress_module(source))
                if not target.with_name(target.name + ".zst").exists():
                    tools.run(["zstd", "-q", "--rm", target], what="packing a module")
    packages: dict[str, bytes | Path] = {}
    for tree, name in ((image, "linux-image-unsigned"), (modules, "linux-modules")):
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}-{release}\nVersion: 1\nArchitecture: amd64\n"
            "Maintainer: nobody <nobody@localhost>\nDescription: a test\n"
        )
        package = into / f"{name}-{release}_1_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, package],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        packages[package.name] = package
    return packages


@pytest.mark.slow
def test_a_kernel_of_the_archives_shape_boots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched over HTTP, verified by signature alone, erofs, overlay and virtio from .ko.zst: the
    guest comes up, says the release, and loads veth by itself."""
    packages = repacked(tmp_path)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "archive").mkdir()
    with served(tmp_path / "archive") as archive:
        monkeypatch.setenv("LAB_MAINLINE_MIRROR", archive.url)
        monkeypatch.setenv("LAB_MAINLINE_KEY", str(archive.key))
        monkeypatch.setenv("LAB_MAINLINE_FINGERPRINT", archive.fingerprint)
        archive.add("6.6.30", packages)
        monkeypatch.delitem(choice.SOURCES, "debian")
        monkeypatch.setitem(choice.SOURCES, "mainline", Mainline())
        files = kernels.obtain(kernels.resolve("6.6"))
    assert "mainline" == files.kernel.source
    assert "unlocked" in str(files.kernel)
    with vm.boot(
        files,
        rootfs=vm.build_rootfs(),
        accel=vm.choose_accel(files),
        results=tmp_path / "results",
    ) as guest:
        assert files.kernel.release == guest.uname
        # By path: busybox's shell prefers its own modprobe, which knows nothing of zstd.
        done = guest.run(["sh", "-c", "/sbin/modprobe veth && /sbin/lsmod"], timeout_s=60)
        assert 0 == done.status
        assert {"veth", "erofs", "overlay", "virtio_blk"} <= {
            line.split()[0] for line in done.stdout.decode().splitlines()
        }
