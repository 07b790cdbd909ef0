# SPDX-License-Identifier: MIT
"""Programs of the host the lab runs, and the package to install when one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError, MissingTool

FEDORA: Mapping[str, str] = {
    "busybox-static": "busybox",
    "gpgconf": "gnupg2",
    "gpg": "gnupg2",
    "gpgv": "gnupg2",
    "iproute2": "iproute",
    "libc-bin": "glibc-common",
    "procps": "procps-ng",
    "xz-utils": "xz",
}
"""Debian and Ubuntu package -> Fedora's, where it is called otherwise. Nothing here was tried on
Fedora."""
PACKAGES: Mapping[str, str] = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "blockdev": "util-linux",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "getent": "libc-bin",
    "gpg": "gpg",
    "gpgconf": "gpgconf",
    "gpgv": "gpgv",
    "gcc": "gcc",
    "git": "git",
    "ip": "iproute2",
    "kmod": "kmod",
    "ldconfig": "libc-bin",
    "ldd": "libc-bin",
    "ls": "coreutils",
    "lz4": "lz4",
    "make": "make",
    "mkfs.erofs": "erofs-utils",
    "modprobe": "kmod",
    "ps": "procps",
    "setpriv": "util-linux",
    "ss": "iproute2",
    "sysctl": "procps",
    "tar": "tar",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Program -> Debian and Ubuntu package."""

_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin"
"""depmod and mkfs live here on Debian; an ordinary user's PATH leaves it out."""


def environment() -> dict[str, str]:
    """This process's environment, with which a program speaks English in UTF-8.

    What programs say is read here. `LANGUAGE` goes before `LC_ALL` in every locale but C itself
    (gettext(3)), and C.UTF-8 is not that one.
    """
    return {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "en"}


def find(name: str, *, package: str = "", fedora: str = "") -> Path:
    """The program's path. Raises MissingTool naming the package it comes in, which is `package`,
    and `fedora` on Fedora, for what `PACKAGES` does not know."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_DIRECTORIES))
    # An empty PATH means "no programs at all" to the tests of this very sentence.
    found = shutil.which(name, path=search if os.environ.get("PATH") else "")
    if found is None:
        package = package or PACKAGES.get(name, name)
        fedora = fedora or FEDORA.get(package, package)
        raise MissingTool(
            f"the program {name} is not installed; it comes in the package {package}",
            hint=f"apt-get install {package}; on Fedora dnf install {fedora}",
        )
    return Path(found)


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 600,
    allowed: Sequence[int] = (0,),
) -> str:
    """Run a program found by `find` and return its output.

    `what` says in words what it is for. Raises MissingTool when it is not installed and LabError
    with its last lines when it ends with a status that is not `allowed` or takes longer than
    `timeout_s` seconds.
    """
    program = find(str(argv[0]))
    command = [str(program), *map(str, argv[1:])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment() if env is None else dict(env),
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: {argv[0]} was not done after {timeout_s:g} s") from error
    if done.returncode not in allowed:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-6:]
        raise LabError(
            f"{what}: {argv[0]} ended with status {done.returncode}: {' / '.join(lines)}"
        )
    return done.stdout
