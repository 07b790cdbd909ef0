# SPDX-License-Identifier: MIT
"""What sources offer, what is kept of it, and what vouches for it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from lab import cache, tools
from lab.cli import main
from lab.errors import KernelUnavailable, LabError, UsageError
from lab.facts.kernel import Flavour, Kernel
from lab.kernels import (
    apt,
    catalogue,
    choice,
    listing,
    lock,
    obtain,
    offered,
    resolve,
    store,
    upkeep,
)
from lab.kernels.catalogue import DebianSettings
from lab.kernels.debian import Debian
from lab.kernels.local import Local
from lab.kernels.model import Release, RemoteFile
from lab.kernels.source import SourceUnreachable
from tests.lab.test_kernels_store import RELEASE, Fake, bz_image, gzipped

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_KERNEL_DIR", raising=False)
    monkeypatch.setattr(choice, "_RESOLVED", {})


class Repository:
    """A Debian archive in a directory, signed with a key of its own."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        home.mkdir(mode=0o700)
        self.gpg("--quick-generate-key", "A throw-away key", "ed25519", "sign", "never")
        self.keyring = home / "key.gpg"
        self.gpg("--output", self.keyring, "--export")

    def gpg(self, *arguments: str | Path) -> None:
        options = ("--homedir", self.home, "--batch", "--passphrase", "")
        tools.run(["gpg", *options, *arguments], what="signing")

    def suite(
        self,
        name: str,
        packages: Sequence[str],
        *,
        until: str = "",
        contents: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Make a suite of packages "name_version", which are empty but for these `contents`."""
        stanzas = []
        for package in packages:
            title, version = package.split("_")
            path = self.root / f"pool/{package}_amd64.deb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents.get(package, package.encode()))
            stanzas.append(
                f"Package: {title}\nVersion: {version}\nArchitecture: amd64\n"
                f"Filename: pool/{path.name}\nSize: {path.stat().st_size}\n"
                f"SHA256: {cache.digest(path)}\nDescription: none\nMaintainer: nobody\n"
            )
        index = self.root / f"dists/{name}/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True)
        index.write_text("\n".join(stanzas))
        listed = index.relative_to(self.root / f"dists/{name}")
        release = self.root / f"dists/{name}/Release"
        release.write_text(
            f"Origin: Debian\nLabel: Debian\nSuite: {name}\nCodename: {name}\n"
            "Date: Fri, 30 Oct 2020 08:08:01 UTC\n"
            + (f"Valid-Until: {until}\n" if until else "")
            + "Architectures: amd64\nComponents: main\nSHA256:\n"
            f" {hashlib.sha256(index.read_bytes()).hexdigest()} {index.stat().st_size} {listed}\n"
        )
        self.gpg("--output", release.with_name("InRelease"), "--clearsign", release)
        release.unlink()


IMAGES = (
    "linux-image-6.12.94+deb13-cloud-amd64_6.12.94-1",
    "linux-image-6.12.94+deb13-amd64_6.12.94-1",
    "linux-image-6.12.94+deb13-rt-amd64_6.12.94-1",
    "linux-image-6.12.94+deb13-cloud-amd64-dbg_6.12.94-1",
    "linux-image-cloud-amd64_6.12.94-1",
)
BACKPORTS = (
    "linux-image-6.12.94+deb12-cloud-amd64_6.12.94-1~bpo12+1",
    "linux-image-7.0.4+deb13-cloud-amd64_7.0.4-1~bpo13+1",
    "linux-binary-7.0.4+deb13-cloud-amd64_7.0.4-1~bpo13+1",
)


@pytest.fixture
def repository(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Repository]:
    # Short: gpg's agent has its socket there, and a socket's path holds 108 bytes at the most.
    home = Path("/tmp") / f"lab-gpg-{tmp_path_factory.getbasetemp().name}-{id(tmp_path):x}"
    made = Repository(tmp_path / "debian", home)
    monkeypatch.setenv("LAB_DEBIAN_MIRROR", f"file:{made.root}")
    monkeypatch.setattr(apt, "keyring", lambda: made.keyring)
    whole = catalogue.read()
    settings = DebianSettings(("trixie", "sid", "gone"), whole.debian.packages)
    monkeypatch.setattr(catalogue, "read", lambda: replace(whole, debian=settings))
    try:
        yield made
    finally:
        tools.run(["gpgconf", "--homedir", home, "--kill", "all"], what="ending gpg's agent")
        shutil.rmtree(home)


def test_every_kernel_of_every_suite_is_offered(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """All suites count, one that does not answer is a warning, metadata past its date is used and
    said to be, and neither metapackages nor debug symbols are kernels."""
    repository.suite("trixie", IMAGES)
    repository.suite("sid", BACKPORTS, until="Fri, 06 Nov 2020 08:08:01 UTC")
    releases = Debian().listing()
    assert [
        ("7.0.4-1~bpo13+1", Flavour.CLOUD),
        ("6.12.94-1", Flavour.CLOUD),
        ("6.12.94-1", Flavour.FULL),
        ("6.12.94-1~bpo12+1", Flavour.CLOUD),
    ] == [(r.kernel.package, r.kernel.flavour) for r in releases]
    by_package = {r.kernel.package: r for r in releases}
    assert "past its date, Fri, 06 Nov 2020" in by_package["6.12.94-1~bpo12+1"].kernel.verified_by
    assert "past its date" not in by_package["6.12.94-1"].kernel.verified_by
    assert "gone" in caplog.text
    # The kernel of 7.0.4 is in the index, its modules are no more.
    newest = by_package["7.0.4-1~bpo13+1"]
    assert "by the key inside that kernel" in newest.kernel.verified_by
    assert [False, True, False] == [bool(file.sha256) for file in newest.files]


def test_a_suite_that_another_key_signed_is_refused(repository: Repository) -> None:
    """Metadata whose signature does not hold is not used, whatever its date."""
    repository.suite("trixie", IMAGES)
    signed = repository.root / "dists/trixie/InRelease"
    signed.write_text(signed.read_text().replace("Suite: trixie", "Suite: stable"))
    with pytest.raises(SourceUnreachable, match="trixie"):
        Debian().listing()


def test_short_names_mean_the_newest_and_full_ones_what_they_say(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.12.94 exists in two packagings: the newest is meant unless the package version is named."""
    repository.suite("trixie", IMAGES)
    repository.suite("sid", BACKPORTS)
    monkeypatch.setattr(lock, "LOCK", None)
    assert "6.12.94-1" == resolve("6.12.94").package
    assert "6.12.94-1" == resolve("v6.12").package
    assert "6.12.94-1~bpo12+1" == resolve("6.12.94-1~bpo12+1").package
    assert "6.12.94+deb12-cloud-amd64" == resolve("6.12.94+deb12-cloud-amd64").release
    assert "6.12.94+deb13-amd64" == resolve("6.12.94-1", flavour=Flavour.FULL).release
    assert "6.12.94+deb13-amd64" == resolve("6.12.94+deb13-amd64").release
    assert "unlocked" in str(resolve("7.0"))
    assert ["7.0.4", "6.12.94", "6.12.94"] == [k.upstream for k in offered()]


def test_a_lock_binds_once_it_names_a_release(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What signed metadata says of a locked release counts for nothing beside the lock."""
    repository.suite("trixie", IMAGES)
    monkeypatch.setattr(lock, "LOCK", tmp_path / "kernels.lock")
    (release,) = [r for r in Debian().matching("6.12.94-1") if r.kernel.flavour is Flavour.CLOUD]
    other = replace(release, files=(replace(release.files[0], sha256="0" * 64),))
    (tmp_path / "kernels.lock").write_text(lock.render([other]))
    kernel = resolve("6.12.94-1")
    assert kernel.locked
    with pytest.raises(KernelUnavailable):
        obtain(kernel)


def test_a_listing_stands_for_hours_and_when_the_source_is_silent() -> None:
    """Asked once, kept; asked afresh, renewed; a source that fails leaves the old one, and says
    so; a listing that was changed is none."""
    answers: Iterator[Sequence[Release] | Exception] = iter(
        [[RELEASE], SourceUnreachable("the source is down"), []]
    )
    notes: list[str] = []

    def ask() -> tuple[Sequence[Release], Sequence[str]]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer, ()

    def get(*, fresh: bool) -> list[str]:
        found = listing.kept("test", ask, fresh=fresh, note=notes.append)
        return [release.kernel.release for release in found.releases]

    assert ["9.9.1-test"] == get(fresh=False)
    assert ["9.9.1-test"] == get(fresh=False)
    assert [] == notes
    assert ["9.9.1-test"] == get(fresh=True)
    assert notes[0].startswith("the source is down; what it offers is as of 2")
    place = cache.root() / "listings/test.json"
    place.write_text(place.read_text().replace("9.9.1", "9.9.2"))
    assert [] == get(fresh=False)


def test_a_file_nobody_vouches_for_is_pinned_by_its_first_download() -> None:
    """What signed metadata does not tell is measured once; another content later is refused."""
    source = Fake()
    package = deb(b"first")
    source.delivers = package
    release = replace(RELEASE, files=(RemoteFile("pool/modules.deb", 0, ""),))
    whole = store.completed(release, source)
    expected = RemoteFile("pool/modules.deb", len(package), hashlib.sha256(package).hexdigest())
    assert (expected,) == whole.files
    assert whole == store.completed(release, source)
    assert 1 == source.downloads
    shutil.rmtree(cache.root() / "packages")
    source.delivers = deb(b"other")
    with pytest.raises(KernelUnavailable, match="expected"):
        store.files_of(release, source)


def test_half_a_file_is_never_pinned() -> None:
    """A package that cannot be unpacked is not what the next download is compared with."""
    source = Fake()
    source.delivers = deb(b"first")[:-700]
    release = replace(RELEASE, files=(RemoteFile("pool/modules.deb", 0, ""),))
    with pytest.raises(LabError, match=r"reading modules\.deb"):
        store.completed(release, source)
    assert [] == list(cache.root().glob("pins/*"))
    assert [] == list(cache.root().glob("packages/*"))


def deb(content: bytes) -> bytes:
    """A package with one file."""
    with cache.scratch() as directory:
        tree = directory / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            "Package: one\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <n@localhost>\n"
            "Description: a test\n"
        )
        (tree / "file").write_bytes(content * 1000)
        made = directory / "one.deb"
        tools.run(["dpkg-deb", "-Znone", "-b", tree, made], what="packing")
        return made.read_bytes()


# -- local kernels ---------------------------------------------------------------------------------


def image(version: str) -> bytes:
    """A bzImage that calls itself `version`."""
    data = bytearray(bz_image(gzipped(b"\x7fELF" + bytes(14) + b"\x3e" + bytes(3000))))
    data[0x20E:0x210] = (0x300 - 0x200).to_bytes(2, "little")
    text = f"{version} (me@here) #1 SMP\0".encode()
    data[0x300 : 0x300 + len(text)] = text
    return bytes(data)


def test_a_kernel_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    """The version comes out of the image; its modules from beside it; both are its identity."""
    place = tmp_path / "bzImage"
    place.write_bytes(image("6.13.0-rc3-mine+"))
    kernel = resolve(str(place))
    assert ("6.13", "6.13.0", "6.13.0-rc3-mine+") == (
        kernel.series,
        kernel.upstream,
        kernel.release,
    )
    modules = tmp_path / "lib/modules/6.13.0-rc3-mine+"
    modules.mkdir(parents=True)
    (modules / "modules.order").touch()
    (modules / "modules.builtin").touch()
    (modules / "one.ko").write_bytes(b"\x7fELF")
    other = resolve(str(place))
    assert other.package != kernel.package
    assert "sha256" in kernel.verified_by
    files = obtain(kernel)
    assert [] == list(files.modules.rglob("*.ko"))


def test_a_directory_of_kernels_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAB_KERNEL_DIR: each image in it, or one level below, by the names of any kernel."""
    (tmp_path / "vmlinuz-6.6.1-mine").write_bytes(image("6.6.1-mine"))
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer/bzImage").write_bytes(image("6.6.2-mine"))
    monkeypatch.setenv("LAB_KERNEL_DIR", str(tmp_path))
    assert ["6.6.2", "6.6.1"] == [r.kernel.upstream for r in Local().listing()]
    assert "6.6.2-mine" == resolve("6.6").release
    assert "6.6.1-mine" == resolve("6.6.1").release
    monkeypatch.setenv("LAB_KERNEL_DIR", "/nonexistent")
    with pytest.raises(SourceUnreachable, match="LAB_KERNEL_DIR is /nonexistent"):
        Local().listing()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"nothing", "is not a kernel image for x86_64"),
        (image("custom"), "calls itself 'custom', which is no version"),
        (image("6.6.1/../../mine"), "calls itself '6.6.1/../../mine', which is no version"),
    ],
)
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A file that is no kernel, or does not say which, is a usage error with its name."""
    place = tmp_path / "vmlinuz"
    place.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        resolve(str(place))


def test_modules_have_to_be_that_kernels(tmp_path: Path) -> None:
    """A directory named for modules that holds another release's is refused by name."""
    place = tmp_path / "vmlinuz"
    place.write_bytes(image("6.6.1-mine"))
    (tmp_path / "other/lib/modules/6.6.2").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"holds no lib/modules/6\.6\.1-mine"):
        resolve(f"{place}:{tmp_path}/other")


# -- python -m lab kernels -------------------------------------------------------------------------


def filled() -> Kernel:
    """Put a kernel into the cache."""
    return store.files_of(RELEASE, Fake()).kernel


def test_verify_finds_one_changed_byte(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole: 0. One byte differs in what was unpacked or downloaded: 1, named, and removed."""
    filled()
    assert 0 == main(["kernels", "verify"])
    told = capsys.readouterr()
    assert "2 as they were put there, 0 not" in told.out
    assert re.match(r"lab: hashing 2 entries of \d+ MB\n", told.err)
    for pattern in ("kernels/*/vmlinux", "packages/*/*"):
        (path,) = cache.root().glob(pattern)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        assert 1 == main(["kernels", "verify"])
        assert "1 as they were put there, 1 not" in capsys.readouterr().out
        assert [] == list(cache.root().glob(pattern))
        filled()
    assert 0 == main(["kernels", "verify"])


def test_verify_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off a terminal a line now and then names what is done and what comes next; on one, a bar
    that ends full and leaves the screen."""
    filled()
    monkeypatch.setattr("lab.commands.amount.SILENCE_S", 0.0)
    assert 0 == main(["kernels", "verify"])
    size = sum(entry.size() for entry in upkeep.entries()) / 1e6
    lines = capsys.readouterr().err.splitlines()[1:]
    assert 2 == len(lines)
    assert re.fullmatch(rf"lab: 0 of 2 done, 0 of {size:.0f} MB; now package \S+", lines[0])
    assert re.fullmatch(rf"lab: 1 of 2 done, \d+ of {size:.0f} MB; now kernel \S+", lines[1])

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert 0 == main(["kernels", "verify"])
    told = capsys.readouterr()
    assert "" == told.err
    assert "hashing" in told.out
    assert told.out.endswith("2 as they were put there, 0 not\n")


def test_prune_removes_what_was_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that is new goes by age; by size the whole cache may."""
    filled()
    assert 0 == main(["kernels", "prune"])
    assert "removed 0 MB\n" == capsys.readouterr().out
    assert 2 == len([*cache.root().glob("kernels/*"), *cache.root().glob("packages/*")])
    assert 0 == main(["kernels", "prune", "--days", "0"])
    assert [] == [*cache.root().glob("kernels/*"), *cache.root().glob("packages/*")]
    filled()
    assert 0 == main(["kernels", "prune", "--gigabytes", "0"])
    assert [] == [*cache.root().glob("kernels/*"), *cache.root().glob("packages/*")]


def test_update_shows_what_it_changes(
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The lock is written, the diff is on standard output; a second time nothing has changed."""
    repository.suite("trixie", IMAGES)
    # The lock that binds is that of the table here; `main` says so to the whole process.
    monkeypatch.setattr(lock, "LOCK", None)
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\nlock = "kernels.lock"\n')
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["kernels", "update", "6.12"])
    shown = capsys.readouterr().out
    assert '+package = "6.12.94-1"\n' in shown
    assert ["6.12.94+deb13-cloud-amd64"] == [r.kernel.release for r in lock.read()]
    assert 0 == main(["kernels", "update", "6.12.94+deb13-amd64"])
    assert '+release = "6.12.94+deb13-amd64"\n' in capsys.readouterr().out
    assert 2 == len(lock.read())
    assert 0 == main(["kernels", "update"])
    assert "nothing has changed\n" == capsys.readouterr().out
    assert 2 == main(["kernels", "update", "nonsense"])


def test_list_shows_every_kernel_with_its_state(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a kernel: version, package, uname -r, source, locked or not, cached or not."""
    repository.suite("trixie", IMAGES)
    assert 0 == main(["kernels", "list"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = ["6.12.94", "6.12.94-1", "6.12.94+deb13-cloud-amd64", "debian", "unlocked"]
    assert expected in rows
    assert 0 == main(["kernels", "list", "--locked"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {"locked"} == {row[4] for row in rows}


def test_pins_are_json_of_sizes_and_hashes() -> None:
    """The file a pin is kept in says the path, the bytes and the sha256, for people to compare."""
    source = Fake()
    source.delivers = deb(b"first")
    store.completed(replace(RELEASE, files=(RemoteFile("pool/m.deb", 0, ""),)), source)
    (pin,) = cache.root().glob("pins/*.json")
    assert [len(source.delivers), hashlib.sha256(source.delivers).hexdigest()] == json.loads(
        pin.read_text()
    )["pool/m.deb"]
