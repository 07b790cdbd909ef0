# SPDX-License-Identifier: MIT
"""The store: what is handed out was compared byte by byte; nothing half-written is ever seen."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab import cache
from lab.arch.x86_64 import X86_64
from lab.errors import KernelUnavailable, LabError
from lab.kernels import Kernel, store
from lab.kernels.model import Release, RemoteFile
from lab.kernels.source import SourceUnreachable

pytestmark = pytest.mark.lab

ELF = b"\x7fELF" + bytes(14) + struct.pack("<H", 62) + bytes(range(256)) * 8


def bz_image(payload: bytes) -> bytes:
    """A file with just enough of a bzImage's header around a payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


def gzipped(data: bytes) -> bytes:
    """gzip is the one packing of the kernel's whose stream carries its own size."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


PACKAGE = bz_image(gzipped(ELF))


class Fake:
    """A source with one package, which is the kernel image itself."""

    name = "fake"

    def __init__(self) -> None:
        self.delivers = PACKAGE
        self.downloads = 0
        self.unpacked = 0
        self.failure: Exception | None = None

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """Nothing: these tests name the release themselves."""
        del fresh
        return ()

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """As `listing`."""
        del wanted, fresh
        return ()

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """Deliver, or fail as a test wants."""
        del file, suite
        self.downloads += 1
        into.write_bytes(self.delivers[:100])
        if self.failure is not None:
            raise self.failure
        into.write_bytes(self.delivers)

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Lay out a kernel without modules."""
        self.unpacked += 1
        shutil.copy(packages[0], tree / "vmlinuz")
        (tree / "config").write_text("CONFIG_IO_URING=y\n")
        modules = tree / "lib/modules" / release.kernel.release
        modules.mkdir(parents=True)
        (modules / "modules.order").touch()
        (modules / "modules.builtin").touch()


RELEASE = Release(
    kernel=Kernel("9.9", "9.9.1", "9.9.1-1", "9.9.1-test", "fake", locked=True, verified_by="us"),
    suite="none",
    files=(RemoteFile("pool/linux.deb", len(PACKAGE), hashlib.sha256(PACKAGE).hexdigest()),),
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A fresh source and a fresh cache."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return Fake()


def leftovers() -> list[Path]:
    """What lies in the scratch directory."""
    directory = cache.root() / "scratch"
    return list(directory.iterdir()) if directory.exists() else []


def test_a_kernel_is_fetched_once(source: Fake) -> None:
    """The second time everything comes from the cache, and is the unpacked ELF."""
    first = store.files_of(RELEASE, source)
    second = store.files_of(RELEASE, source)
    assert first == second
    assert (1, 1) == (source.downloads, source.unpacked)
    assert ELF == second.vmlinux.read_bytes()
    assert (second.modules / "modules.dep").exists()
    assert ("9.9.1-test",) == store.cached()
    assert [] == leftovers()


@pytest.mark.parametrize("name", ["vmlinux", "vmlinuz", "config", "lib", "manifest.json"])
def test_one_changed_byte_in_the_cache_is_never_booted(source: Fake, name: str) -> None:
    """Every file of an entry, its manifest included, is compared; a changed one is made anew."""
    files = store.files_of(RELEASE, source)
    entry = files.vmlinux.parent
    path = files.modules / "modules.dep.bin" if name == "lib" else entry / name
    before = path.read_bytes()
    path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    notes: list[str] = []
    again = store.files_of(RELEASE, source, note=notes.append)
    assert ELF == again.vmlinux.read_bytes()
    assert path.read_bytes() == before
    assert (1, 2) == (source.downloads, source.unpacked)
    assert any("unpacking it again" in note for note in notes)


@pytest.mark.parametrize("change", ["missing", "added", "shortened"])
def test_a_changed_tree_is_made_anew(source: Fake, change: str) -> None:
    """A file too few, too many or too short is noticed like a changed one."""
    files = store.files_of(RELEASE, source)
    match change:
        case "missing":
            files.config.unlink()
        case "added":
            (files.modules / "evil.ko").write_text("x")
        case _:
            files.vmlinux.write_bytes(ELF[:-1])
    again = store.files_of(RELEASE, source)
    assert 2 == source.unpacked
    assert again.config.exists()
    assert not (files.modules / "evil.ko").exists()
    assert ELF == again.vmlinux.read_bytes()


def test_one_changed_byte_in_a_cached_package_is_fetched_again(source: Fake) -> None:
    """A package is compared even when what it unpacked to is still good."""
    store.files_of(RELEASE, source)
    (package,) = (cache.root() / "packages").glob("*/linux.deb")
    package.write_bytes(PACKAGE[:-1] + b"!")
    notes: list[str] = []
    store.files_of(RELEASE, source, note=notes.append)
    assert 2 == source.downloads
    assert PACKAGE == package.read_bytes()
    assert any("not what it was" in note for note in notes)


@pytest.mark.parametrize("delivered", [PACKAGE[:-1] + b"!", PACKAGE[:-1], PACKAGE + b"!", b""])
def test_a_wrong_download_is_refused(source: Fake, delivered: bytes) -> None:
    """Other bytes than the lock names are not kept, and both hashes are told."""
    source.delivers = delivered
    with pytest.raises(KernelUnavailable, match=hashlib.sha256(PACKAGE).hexdigest()) as caught:
        store.files_of(RELEASE, source)
    assert hashlib.sha256(delivered).hexdigest() in str(caught.value)
    assert [] == list((cache.root() / "packages").glob("*/*"))
    assert [] == leftovers()
    source.delivers = PACKAGE
    assert ELF == store.files_of(RELEASE, source).vmlinux.read_bytes()


def test_a_broken_download_leaves_nothing(source: Fake) -> None:
    """A source that fails half-way leaves no half of a file."""
    source.failure = SourceUnreachable("gone")
    with pytest.raises(SourceUnreachable, match="gone"):
        store.files_of(RELEASE, source)
    assert [] == leftovers()
    assert () == store.cached()


def test_what_a_killed_run_left_is_swept(source: Fake) -> None:
    """Scratch directories of the dead go; those of the living stay."""
    code = (
        "import os, signal, sys\n"
        "from lab import cache\n"
        "with cache.scratch() as directory:\n"
        "    (directory / 'half').write_text('x')\n"
        "    print(directory, flush=True)\n"
        "    if sys.argv[1] == 'die': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout is not None
        alive = Path(living.stdout.readline().decode().strip())
        dead = subprocess.run(
            [sys.executable, "-c", code, "die"], stdout=subprocess.PIPE, check=False
        )
        left = Path(dead.stdout.decode().strip())
        assert (left / "half").exists()
        store.files_of(RELEASE, source)
        assert not left.exists()
        assert (alive / "half").exists()
        living.communicate()
    assert not alive.exists()


@pytest.mark.usefixtures("source")
def test_two_runs_share_one_download() -> None:
    """Who comes second waits for the first and finds the work done."""
    code = (
        "import sys, time\n"
        "from tests.lab.test_kernels_store import RELEASE, Fake\n"
        "from lab.kernels import store\n"
        "class Slow(Fake):\n"
        "    def download(self, file, into, *, suite):\n"
        "        print('begun', flush=True); sys.stdin.readline()\n"
        "        super().download(file, into, suite=suite)\n"
        "source = Slow()\n"
        "store.files_of(RELEASE, source)\n"
        "print(source.downloads)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert "begun\n" == first.stdout.readline()
        lock = next((cache.root() / "locks").glob("kernel-*.lock"))
        second = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        with second:
            _until_waiting(second.pid, lock)
            assert "1\n" == first.communicate("go\n")[0]
            assert "0\n" == second.communicate()[0]


def _until_waiting(pid: int, lock: Path) -> None:
    """Return once the process stands in line for the lock, as the kernel lists it."""
    inode = lock.stat().st_ino
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in Path("/proc/locks").read_text().splitlines():
            if "->" in line and f" {pid} " in line and line.split()[-3].endswith(f":{inode}"):
                return
        os.sched_yield()
    raise AssertionError(f"process {pid} never waited for {lock}")


def packed_with(program: str) -> Callable[[bytes], bytes]:
    """The kernel's own way: the stream, then the unpacked size."""

    def pack(data: bytes) -> bytes:
        options = {"zstd": ["-q"], "lz4": ["-l"], "xz": ["--check=crc32"]}[program]
        done = subprocess.run(
            [program, *options, "-c"], input=data, capture_output=True, check=True
        )
        return done.stdout + struct.pack("<I", len(data))

    return pack


@pytest.mark.parametrize("pack", [gzipped, *map(packed_with, ("zstd", "lz4", "xz"))])
def test_every_packing_of_an_image_is_understood(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """gzip, zstd (6.12), lz4 (6.1) and xz payloads give the ELF inside."""
    assert ELF == X86_64().unpacked(bz_image(pack(ELF)), tmp_path)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (b"MZ", "no HdrS"),
        (bytes(4096), "no HdrS"),
        (PACKAGE[:-4], "cut short"),
        (bz_image(gzipped(b"no elf" * 10)), "not an ELF"),
        (bz_image(gzipped(ELF.replace(b"\x3e", b"\x03", 1))), "of machine 3, not 62"),
        (bz_image(b"what is this" * 10), "unknown packing"),
        (bz_image(packed_with("xz")(ELF)[:-4] + struct.pack("<I", 1)), "expected 1"),
        (bz_image(gzipped(ELF)[:-12] + bytes(12)), "vmlinuz is damaged"),
        (bz_image(packed_with("xz")(ELF)[:-20] + bytes(20)), "vmlinuz is damaged"),
    ],
)
def test_what_is_no_kernel_is_refused(tmp_path: Path, image: bytes, complaint: str) -> None:
    """A damaged image is an error that says in what way."""
    with pytest.raises(LabError, match=complaint):
        X86_64().unpacked(image, tmp_path / "vmlinuz")
