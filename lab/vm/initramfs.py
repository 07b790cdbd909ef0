# SPDX-License-Identifier: MIT
"""The initramfs of a kernel (busybox, the modules its root needs, our init and agent) and the
image of all its modules."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lab import cache, tools
from lab.errors import LabError
from lab.kernels import KernelFiles
from lab.kernels.elf import decompress_module

from .cpio import Cpio
from .erofs import cached_image, make_image

_INGUEST = Path(__file__).with_name("inguest")
_NEEDED = ("virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay")
"""What init needs before the root is there. Built in or not depends on the kernel: Debian's 6.1
has the first two as modules, its 6.12 does not."""
_DIRECTORIES = ("bin", "dev", "lab", "lab/modules", "lower", "new", "proc", "rw", "sys")


def build_initramfs(files: KernelFiles) -> Path:
    """The initramfs for this kernel, from the cache if nothing that goes in has changed.

    Raises MissingTool, and LabError when the kernel has no way to mount the root.
    """
    archive = Cpio()
    for name in _DIRECTORIES:
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", _static_busybox().read_bytes(), 0o755)
    archive.file("init", (_INGUEST / "init").read_bytes(), 0o755)
    for name in ("agent.py", "pid1"):
        archive.file(f"lab/{name}", (_INGUEST / name).read_bytes())
    order = []
    for module in _modules(files):
        name = module.name[: module.name.index(".ko") + 3]
        order.append(name)
        archive.file(f"lab/modules/{name}", decompress_module(module))
    archive.file("lab/modules/order", "".join(f"{name}\n" for name in order).encode())
    data = archive.finish()
    key = hashlib.sha256(data).hexdigest()[:16]

    def write(image: Path, _: Path) -> None:
        image.write_bytes(data)

    return cached_image(f"initramfs-{key}.cpio", write)


def _static_busybox() -> Path:
    path = tools.find("busybox")
    # The initramfs has no dynamic loader; the package `busybox` (not -static) would need one.
    if b"/ld-linux" in path.read_bytes()[:4096]:
        raise LabError(f"{path} is not the static busybox", hint="apt-get install busybox-static")
    return path


def _modules(files: KernelFiles) -> list[Path]:
    """The files of the modules init must load, in order, dependencies first."""
    base = files.modules.parents[2]
    chosen: dict[Path, None] = {}
    if not any(files.modules.rglob("*.ko*")):
        return []  # a developer's kernel with everything built in; init tells what is missing
    for name in _NEEDED:
        # modprobe knows aliases, built-in modules and soft dependencies (libcrc32c wants one).
        listing = tools.run(
            ["modprobe", "-d", base, "-S", files.kernel.release, "--show-depends", name],
            what=f"looking for the module {name} of {files.kernel.release}",
        )
        for line in listing.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod":
                chosen.setdefault(Path(rest.split()[0]))
    return list(chosen)


def build_modules_image(files: KernelFiles) -> Path:
    """An erofs image of the kernel's modules, mounted at /lib/modules/RELEASE in the guest."""
    index = files.modules / "modules.dep"
    identity = f"{files.modules.parents[2].name} {cache.digest(index)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return make_image(files.modules, f"modules-{key}.erofs")
