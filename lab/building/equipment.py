# SPDX-License-Identifier: MIT
"""What a machine needs to build a kernel: Documentation/process/changes.rst of the kernel."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from .. import tools
from ..errors import MissingTool


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a build takes."""

    name: str
    """A program, or a header in the compiler's path."""
    package: str
    """Debian's and Ubuntu's."""
    fedora: str


PROGRAMS = (
    Need("make", "make", "make"),
    Need("gcc", "gcc", "gcc"),
    Need("ld", "binutils", "binutils"),
    Need("flex", "flex", "flex"),
    Need("bison", "bison", "bison"),
    Need("bc", "bc", "bc"),
    Need("perl", "perl", "perl"),
    Need("gzip", "gzip", "gzip"),
    Need("depmod", "kmod", "kmod"),
)
HEADERS = (
    # objtool reads every object file of an x86 kernel.
    Need("gelf.h", "libelf-dev", "elfutils-libelf-devel"),
    # scripts/sign-file and certs/extract-cert.
    Need("openssl/ssl.h", "libssl-dev", "openssl-devel"),
)


def check() -> None:
    """Raise MissingTool with everything that a build lacks here, in one sentence."""
    lacking = [need for need in PROGRAMS if not _installed(need.name)]
    if not any(need.name == "gcc" for need in lacking):
        lacking += [need for need in HEADERS if not _included(need.name)]
    if lacking:
        names = ", ".join(need.name for need in lacking)
        debian = " ".join(dict.fromkeys(need.package for need in lacking))
        fedora = " ".join(dict.fromkeys(need.fedora for need in lacking))
        raise MissingTool(
            f"to build a kernel this machine lacks {names}",
            hint=f"apt-get install {debian}; on Fedora dnf install {fedora}",
        )


def compiler() -> str:
    """Which compiler and linker these are, by their own words."""
    lines = [
        tools.run([name, "--version"], what=f"asking {name} for its version").splitlines()[0]
        for name in ("gcc", "ld")
    ]
    return "; ".join(lines)


def has_ccache() -> bool:
    """Whether a compiler's work is kept by ccache."""
    return _installed("ccache")


def _installed(name: str) -> bool:
    try:
        tools.find(name)
    except MissingTool:
        return False
    return True


def _included(header: str) -> bool:
    done = subprocess.run(
        [str(tools.find("gcc")), "-E", "-x", "c", "-"],
        input=f"#include <{header}>\n".encode(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
