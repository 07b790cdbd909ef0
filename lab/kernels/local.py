# SPDX-License-Identifier: MIT
"""Kernels of a developer's own: an image file, or a directory of them in `$LAB_KERNEL_DIR`.

In the directory what has the name of a kernel image (`DIR/vmlinuz-*`), and the same one level below
it, are kernels.
Modules are looked for where `make modules_install INSTALL_MOD_PATH=` and packages put them: in
`lib/modules/RELEASE` or `usr/lib/modules/RELEASE` beside the image or one or two levels up. A
kernel without modules is booted as it is; it needs virtio, erofs and overlay built in.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import arch, cache
from ..errors import LabError, UsageError
from ..facts.kernel import Kernel, series_of
from .model import Release, RemoteFile, newest_first
from .source import FileGone, SourceUnreachable, named

VARIABLE = "LAB_KERNEL_DIR"
_BELOW = ("", "*/", "*/boot/")
"""Where below `$LAB_KERNEL_DIR` images are."""
_NO_MODULES = "-"


class Local:
    """Files of this machine. The hash is taken when a file is named, so what is booted is what
    was there then."""

    name = "local"

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`; what `$LAB_KERNEL_DIR` holds."""
        del fresh
        named_directory = os.environ.get(VARIABLE)
        if not named_directory:
            return ()
        directory = Path(named_directory)
        if not directory.is_dir():
            raise SourceUnreachable(f"{VARIABLE} is {directory}, which is not a directory")
        return newest_first(release_of(image) for image in _images(directory))

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`; a name with a slash is a file, and its modules behind a colon."""
        if "/" in wanted:
            return (release_of(*_image_and_modules(wanted)),)
        return tuple(one for one in self.listing(fresh=fresh) if named(one.kernel, wanted))

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """Copy the image."""
        del suite
        try:
            shutil.copyfile(file.path, into)
        except OSError as error:
            raise FileGone(f"{file.path} cannot be read: {error.strerror}") from error

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Lay the image and its modules out as the store wants them."""
        install(release, packages[0], tree)


def release_of(image: Path, modules: Path | None = None) -> Release:
    """What a kernel image of this machine is. Raises UsageError when it is none."""
    image = image.absolute()
    release = _release_text(image)
    # It becomes part of paths in the cache.
    match = re.fullmatch(r"(\d+\.\d+(?:\.\d+)?)[\w.+~-]*", release, re.ASCII)
    if match is None:
        raise UsageError(
            f"{image} calls itself {release!r}, which is no version with words behind it like "
            "'6.6.1-mine'"
        )
    place = _modules(image, modules, release)
    sha256 = cache.digest(image)
    stamp = _stamp(place) if place else ""
    identity = hashlib.sha256(f"{sha256} {stamp}".encode()).hexdigest()
    kernel = Kernel(
        series=series_of(match[1]),
        upstream=match[1],
        package=f"local-{identity[:12]}",
        release=release,
        source=Local.name,
        locked=False,
        verified_by=f"sha256 {sha256} of {image}",
    )
    file = RemoteFile(path=str(image), size=image.stat().st_size, sha256=sha256)
    return Release(kernel=kernel, suite=str(place) if place else _NO_MODULES, files=(file,))


def modules_of(release: Release) -> Path | None:
    """Where the modules of a local kernel are, if it has any."""
    return None if release.suite == _NO_MODULES else Path(release.suite)


def install(release: Release, image: Path, tree: Path) -> None:
    """Lay a local kernel out in `tree` as the store wants it. Raises LabError."""
    shutil.copyfile(image, tree / "vmlinuz")
    modules = modules_of(release)
    target = tree / "lib/modules" / release.kernel.release
    if modules is None:
        target.mkdir(parents=True)
    else:
        # build and source lead into the kernel's tree, which may be gigabytes.
        ignored = shutil.ignore_patterns("build", "source")
        shutil.copytree(modules, target, ignore=ignored)
        if _stamp(modules) != _stamp(target):
            raise LabError(f"{modules} changed while it was copied")
    config = _config(Path(release.files[0].path), release.kernel.release, modules)
    (tree / "config").write_bytes(config.read_bytes() if config else b"")


def _image_and_modules(name: str) -> tuple[Path, Path | None]:
    """The image that `name` is, or the image before a colon and the modules behind it. Each path
    may hold colons of its own: what is a file tells."""
    if not Path(name).exists():
        words = name.split(":")
        for count in range(len(words) - 1, 0, -1):
            image, modules = ":".join(words[:count]), ":".join(words[count:])
            if modules and Path(image).is_file():
                return Path(image), Path(modules)
    return Path(name), None


def _images(directory: Path) -> Iterator[Path]:
    patterns = [f"{below}{name}" for below in _BELOW for name in arch.here().images]
    found = {path for pattern in patterns for path in directory.glob(pattern) if path.is_file()}
    yield from sorted(found)


def _release_text(image: Path) -> str:
    its = arch.here()
    try:
        with image.open("rb") as file:
            text = its.version_text(file)
    except OSError as error:
        raise UsageError(f"the kernel {image} cannot be read: {error.strerror}") from error
    if text is None:
        raise UsageError(f"{image} is not a kernel image for {its.name}", hint=its.image_hint)
    return text.split(" ", 1)[0]


def _modules(image: Path, named_place: Path | None, release: str) -> Path | None:
    if named_place is None:
        tops: Sequence[Path] = (*list(image.parents)[:3],)
    else:
        tops = (named_place.absolute(),)
        if named_place.name == release and named_place.is_dir():
            return named_place.absolute()
    for top in tops:
        for below in ("lib/modules", "usr/lib/modules"):
            if (top / below / release).is_dir():
                return top / below / release
    if named_place is not None:
        raise UsageError(
            f"{named_place} holds no lib/modules/{release}",
            hint="make modules_install INSTALL_MOD_PATH=DIR makes one",
        )
    return None


def _config(image: Path, release: str, modules: Path | None) -> Path | None:
    candidates = [image.with_name(f"config-{release}"), image.with_name("config")]
    if modules is not None:
        candidates.append(modules / "config")
    # In a build tree the image is in arch/NAME/boot and the configuration at its top.
    candidates += [parent / ".config" for parent in list(image.parents)[3:4]]
    return next((path for path in candidates if path.is_file()), None)


def _stamp(directory: Path) -> str:
    """A hash over names and contents of all modules."""
    digest = hashlib.sha256()
    paths = sorted(path for path in directory.rglob("*.ko*") if path.is_file())
    for path in paths:
        digest.update(f"{path.relative_to(directory)} {cache.digest(path)}\n".encode())
    for name in ("modules.builtin", "modules.order"):
        if (directory / name).is_file():
            digest.update(f"{name} {cache.digest(directory / name)}\n".encode())
    return digest.hexdigest()
