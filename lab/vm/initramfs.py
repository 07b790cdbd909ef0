# SPDX-License-Identifier: MIT
"""The initramfs of a kernel (busybox, the modules its root needs, our init and agent) and the
image of all its modules."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
from collections.abc import Iterator
from pathlib import Path

from virtme import modfinder
from virtme.cpiowriter import CpioWriter

from .. import arch, cache, packing, tools
from ..errors import LabError
from ..kernels import KernelFiles
from .erofs import cached_image, make_image

_INGUEST = Path(__file__).with_name("inguest")
_MODULES = ("__init__", "agent", "children", "frames")
"""Of the agent, beside the file that starts it."""
_NEEDED = ("virtio_console", "virtio_blk", "erofs", "overlay")
"""What init needs before the root is there, beside the bus of virtio. Built in or not depends on
the kernel: Debian's 6.1 has that and the first as modules, its 6.12 does not."""
_DIRECTORIES = (
    "bin",
    "dev",
    "lab",
    "lab/inguest",
    "lab/modules",
    "lower",
    "new",
    "proc",
    "rw",
    "sys",
)


def build_initramfs(files: KernelFiles) -> Path:
    """The initramfs for this kernel, from the cache if nothing that goes in has changed.

    Raises MissingTool, and LabError when the kernel has no way to mount the root.
    """
    buffer = io.BytesIO()
    # virtme-ng's writer takes neither a clock nor the disk's inode numbers: the same files are the
    # same bytes, and the cache finds them again.
    archive = CpioWriter(buffer)
    for name in _DIRECTORIES:
        archive.mkdir(name.encode(), 0o755)
    archive.mkchardev(b"dev/console", (5, 1), 0o600)
    archive.write_file(b"bin/busybox", _static_busybox().read_bytes(), 0o755)
    archive.write_file(b"init", (_INGUEST / "init").read_bytes(), 0o755)
    archive.write_file(b"lab/pid1", (_INGUEST / "pid1").read_bytes(), 0o644)
    for name, content in _agent():
        archive.write_file(f"lab/inguest/{name}".encode(), content, 0o644)
    order = []
    for module in _modules(files):
        name = _name(module) + ".ko"
        order.append(name)
        archive.write_file(f"lab/modules/{name}".encode(), packing.decompress_module(module), 0o644)
    archive.write_file(b"lab/modules/order", "".join(f"{n}\n" for n in order).encode(), 0o644)
    archive.write_trailer()
    data = buffer.getvalue()
    key = hashlib.sha256(data).hexdigest()[:16]

    def write(image: Path, _: Path) -> None:
        image.write_bytes(data)

    return cached_image(f"initramfs-{key}.cpio", write)


def _agent() -> Iterator[tuple[str, bytes]]:
    """The files that the agent is made of. Python runs the first, and would compile it with every
    boot; so it is small, and the others are compiled here, by the Python that runs them."""
    yield "start.py", (_INGUEST / "start.py").read_bytes()
    for name in _MODULES:
        source = _INGUEST / f"{name}.py"
        code = compile(
            source.read_bytes(), f"/run/lab/inguest/{name}.py", "exec", dont_inherit=True
        )
        # PEP 552: flags 1 is a hash, of no source, that nobody compares. Version 2 of marshal has
        # no references, whose number depends on what else holds an object.
        head = importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + bytes(8)
        yield f"{name}.pyc", head + marshal.dumps(code, 2)


def _static_busybox() -> Path:
    path = tools.find("busybox")
    # The initramfs has no dynamic loader; the package `busybox` (not -static) would need one.
    if b"/ld-linux" in path.read_bytes()[:4096]:
        raise LabError(f"{path} is not the static busybox", hint="apt-get install busybox-static")
    return path


def _modules(files: KernelFiles) -> list[Path]:
    """The files of the modules init must load, in order, dependencies first."""
    if not any(files.modules.rglob("*.ko*")):
        return []  # a developer's kernel with everything built in; init tells what is missing
    tools.find("modprobe")
    needed = (*arch.here().virtio_modules, *_NEEDED)
    release = files.kernel.release
    found = [
        Path(path)
        for path in modfinder.find_modules_from_install(
            needed, root=str(files.modules.parents[2]), kver=release
        )
    ]
    # The finder takes a module that modprobe does not know for one that is built in.
    there = {*map(_name, found), *_built_in(files.modules / "modules.builtin")}
    if missing := [name for name in needed if name not in there]:
        raise LabError(
            f"{release} has no {', '.join(missing)}, neither built in nor among its modules:"
            " a guest's root cannot be mounted",
            hint="for a kernel of your own, --modules names where modules_install put them",
        )
    return found


def _built_in(index: Path) -> set[str]:
    try:
        return {_name(Path(line)) for line in index.read_text().splitlines()}
    except FileNotFoundError:
        return set()


def _name(module: Path) -> str:
    """A module's name as the kernel says it, from the name of its file (virtio_pci.ko.xz)."""
    return module.name.partition(".ko")[0].replace("-", "_")


def build_modules_image(files: KernelFiles) -> Path:
    """An erofs image of the kernel's modules, mounted at /lib/modules/RELEASE in the guest."""
    index = files.modules / "modules.dep"
    identity = f"{files.modules.parents[2].name} {cache.digest(index)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return make_image(files.modules, f"modules-{key}.erofs")
