# SPDX-License-Identifier: MIT
"""The guest's root image: this very Python and its virtual environment, as erofs.

Paths are those of the host, so that the interpreter, the environment's scripts and every .pyc in
it work unchanged. The code under test is not in it; it is pushed into the booted guest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from .. import tools
from ..errors import MissingTool
from .erofs import cached_image, pack
from .tree import Tree, shared_libraries

_log = logging.getLogger("lab.vm")
HEAVY = 2 << 30
"""An environment of more bytes takes minutes to pack, and is said."""
_PACKAGES = ("site-packages", "dist-packages")
_FORMAT = 2
"""Raised when the way an image is made changes."""

_SKIPPED_DIRECTORIES = frozenset(
    # Parts of the standard library no test in a guest imports, and by far its largest.
    ("test", "tests", "idlelib", "turtledemo", "ensurepip", "lib2to3", "tkinter", "__pycache__")
)
_SKIPPED_STDLIB = frozenset(("site-packages", "dist-packages"))
_SKIPPED_PACKAGES = ("mypy", "mypyc", "pip", "ruff", "setuptools", "virtme", "virtme_ng")
"""Tools that judge or install code on the host. With them the image would be twice as large."""

_LIBRARIES = ("liburing.so.2",)
"""Libraries of pushed code: nothing in the environment itself needs them."""

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost guest\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\n"
    "services: files\n",
    "etc/protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n",
    "etc/services": "http 80/tcp\nhttps 443/tcp\n",
    "etc/hostname": "guest\n",
}
_EMPTY = ("dev", "proc", "sys", "run", "tmp", "root", "lab", "etc", "var/tmp", "lib/modules")
# fmt: off
_APPLETS = (
    "sh", "ash", "awk", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df",
    "dirname", "dmesg", "du", "echo", "env", "expr", "false", "find", "grep", "head", "hostname",
    "id", "ifconfig", "ip", "kill", "ln", "ls", "md5sum", "mkdir", "mktemp", "mount", "mv", "nc",
    "netstat", "nproc", "ping", "printf", "ps", "pwd", "readlink", "realpath", "reboot", "rm",
    "rmdir", "sed", "seq", "sha1sum", "sha256sum", "sha512sum", "sleep", "sort", "stat", "stty",
    "sync", "sysctl", "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "umount",
    "uname", "uniq", "usleep", "vi", "wc", "which", "xargs",
)
# fmt: on
_SHELL = Path("/bin/sh")
"""What this machine's scripts are read by. busybox's shell prefers its own applets to the programs
of the same names (1.35), so it is no way to run those."""
PROGRAMS = ("blockdev", "getent", "ip", "ls", "ps", "ss", "sysctl")
"""Programs of this machine that can do what busybox's of the same names cannot, as far as this
machine has them: with them a guest tells the state of its kernel."""


def shell() -> str:
    """The path of this machine's own shell, which every guest has at the same place."""
    return str(_SHELL.resolve())


def _programs() -> dict[str, Path]:
    """Those of `PROGRAMS` that this machine has."""
    found = {}
    for name in PROGRAMS:
        with suppress(MissingTool):
            found[name] = tools.find(name)
    return found


def build_rootfs(leave_out: Sequence[str] = ()) -> Path:
    """The image's path in the cache; built when nothing there has the same content key. Packages of
    the environment that are called as in `leave_out` are not in it.

    The key covers the interpreter, the standard library, the environment and the programs beside
    them, each file by size and time. Raises MissingTool.
    """
    key = hashlib.sha256(json.dumps([_FORMAT, *_identity(leave_out)]).encode()).hexdigest()[:16]
    return cached_image(f"rootfs-{key}.erofs", partial(_build_said, leave_out))


def _interpreter() -> Path:
    """The interpreter behind the environment's links."""
    return Path(sys.executable).resolve()


def _standard_library() -> tuple[Path, ...]:
    paths = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    base = [Path(path.replace(sys.prefix, sys.base_prefix, 1)) for path in paths]
    return tuple(dict.fromkeys(path.resolve() for path in base))


def _environment() -> tuple[Path, ...]:
    """Where packages are: all of a virtual environment, or just the packages of a bare Python."""
    if sys.prefix != sys.base_prefix:
        return (Path(sys.prefix),)
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return tuple(dict.fromkeys(Path(path) for path in paths))


def _build_said(leave_out: Sequence[str], image: Path, work: Path) -> None:
    if sentence := heavy(leave_out):
        _log.warning("%s", sentence)
    _build(leave_out, image, work)


def heavy(leave_out: Sequence[str], most: int = HEAVY) -> str:
    """What is large in an environment that makes a large image, and what to exclude; empty if it is
    of no more than `most` bytes."""
    sizes: Counter[str] = Counter()
    for root in _environment():
        for path in _walk(root, leave_out):
            parts = path.relative_to(root).parts
            place = next((n for n, part in enumerate(parts) if part in _PACKAGES), -1) + 1
            name = parts[place] if place < len(parts) else parts[-1]
            sizes[name] += path.lstat().st_size
    if (whole := sum(sizes.values())) <= most:
        return ""
    largest = sizes.most_common(4)
    told = ", ".join(f"{name} ({size / (1 << 20):.0f} MiB)" for name, size in largest)
    return (
        "the Python environment that goes into the root image has "
        f"{whole / (1 << 30):.1f} GiB; "
        f'the largest are {told}; environment-exclude = ["{largest[0][0]}"] leaves it out'
    )


def _identity(leave_out: Sequence[str]) -> Iterator[object]:
    """Everything an image depends on, in a fixed order."""
    yield from (str(_interpreter()), sys.version, sys.executable)
    # The dynamic linker's cache is written anew whenever a package brings or changes a library:
    # an image with yesterday's libc would not run what is built with today's.
    cache = Path("/etc/ld.so.cache")
    programs = _programs().values()
    for path in (_interpreter(), tools.find("busybox"), tools.find("kmod"), cache):
        yield _stamp(path)
    for path in (Path(shell()), *programs):
        yield _stamp(path.resolve())
    for root in (*_standard_library(), *_environment()):
        for path in _walk(root, leave_out):
            yield _stamp(path)


def _stamp(path: Path) -> list[object]:
    status = path.lstat()
    return [str(path), status.st_size, status.st_mtime_ns, status.st_mode]


def _walk(root: Path, leave_out: Sequence[str]) -> Iterator[Path]:
    """Every file below `root` that goes into an image, sorted; links are not followed."""
    in_library = root in _standard_library()
    for directory, names, files in os.walk(root):
        here = Path(directory)
        skipped = set(_SKIPPED_DIRECTORIES)
        if in_library and here == root:
            skipped |= _SKIPPED_STDLIB
        if here.name in _PACKAGES:
            # `tests` of a package may be imported by it; only the library's own are known.
            skipped = {"__pycache__"} | {n for n in names if _is_skipped_package(n, leave_out)}
        elif not in_library:
            skipped = {"__pycache__"}
        links = [name for name in names if (here / name).is_symlink()]
        names[:] = sorted(name for name in names if name not in skipped and name not in links)
        for name in sorted([*files, *links]):
            if not name.endswith((".a", ".pyc")) and not _is_skipped_file(here, name):
                yield here / name


def _is_skipped_package(name: str, leave_out: Sequence[str]) -> bool:
    skipped = (*_SKIPPED_PACKAGES, *leave_out)
    return any(name == p or name.startswith(f"{p}-") for p in skipped)


def _is_skipped_file(directory: Path, name: str) -> bool:
    if directory.name == "bin" and name.startswith(("ruff", "mypy", "dmypy", "pip", "vng")):
        return True
    return directory.name == "site-packages" and "__mypyc." in name


def _build(leave_out: Sequence[str], image: Path, work: Path) -> None:
    tools.find("mkfs.erofs")  # before seconds of work, not after
    tree = Tree(work)
    for name in _EMPTY:
        tree.directory(f"/{name}")
    for name, text in _FILES.items():
        tree.write(f"/{name}", text)
    sources = [
        path for root in (*_standard_library(), *_environment()) for path in _walk(root, leave_out)
    ]
    interpreter, kmod = _interpreter(), tools.find("kmod")
    # The environment names its base by a path that may lead through links of its own.
    base = Path(getattr(sys, "_base_executable", sys.executable))
    for path in (*sources, Path(sys.executable), base, interpreter, kmod):
        tree.add(path)
    tree.link("/lab/python", str(interpreter))
    tree.add(tools.find("busybox"), at="/bin/busybox")
    for name in _APPLETS:
        tree.link(f"/bin/{name}", "busybox")
    tree.add(Path(shell()))
    programs = {name: path.resolve() for name, path in _programs().items()}
    for name, path in programs.items():
        tree.unlink(f"/bin/{name}")
        tree.add(path, at=f"/bin/{name}")
    # The kernel starts /sbin/modprobe by itself when somebody asks for a veth pair. kmod and not
    # busybox: Debian's modules are packed, busybox hands them to the kernel as they are, and the
    # kernel logs an error before the second try that unpacks them.
    for name in ("modprobe", "lsmod", "rmmod", "insmod"):
        tree.link(f"/sbin/{name}", str(kmod.resolve()))
    binaries = [interpreter, kmod, Path(shell()), *programs.values()]
    binaries += [path for path in sources if ".so" in path.suffixes]
    for library in shared_libraries(binaries, by_name=_LIBRARIES):
        tree.add(library)
    tree.compile_python([*_standard_library(), *_environment()])
    pack(tree.root, image)
