# SPDX-License-Identifier: MIT
"""`Project`: what one repository asks of the lab. Only data; `reader` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..wishes import Wishes


class ProgramFormat(StrEnum):
    """How a program that is not pytest says what came of its tests."""

    EXIT = "exit"
    """By its exit status alone: 0 passed, 4 and 77 skipped."""
    TAP = "tap"
    KTAP = "ktap"
    AUTO = "auto"
    """TAP if one line of its output is TAP's, else the exit status."""
    KSELFTEST = "kselftest"
    """An installation of the kernel's selftests: `directory` has kselftest-list.txt."""


@dataclass(frozen=True, slots=True)
class Program:
    """One `[[tool.lab.programs]]`: tests that are executables."""

    name: str
    """Begins the ids of its tests."""
    directory: str = ""
    """Where the executables are, relative to the root; empty if `command` lists them."""
    command: tuple[str, ...] = ()
    """Prints the executables, one a line; empty if they are all of `directory`."""
    format: ProgramFormat = ProgramFormat.AUTO
    timeout_s: float | None = None
    """Time limit of each executable in seconds; None for the lab's own."""


@dataclass(frozen=True, slots=True)
class Errata:
    """`[tool.lab.errata]`: defects of released kernels that this repository has reproducers for."""

    list: str
    """The file that names them, relative to the root."""
    reproducers: str
    """The directory of their reproducers."""
    followed: tuple[str, ...]
    """Directories whose modules are part of a reproducer's program when it imports them."""
    sources: tuple[str, ...] = ()
    """More files that are part of every reproducer's program."""
    page: str = ""
    """The page that a sweep writes; empty for none."""
    table: str = ""
    """The same as JSON, which keeps what was found before; empty for none."""


@dataclass(frozen=True, slots=True)
class Project:
    """What one repository asks of the lab. Paths are relative to `root`, with slashes."""

    root: Path
    file: str = ""
    """`pyproject.toml` or `lab.toml`; empty for a repository that has no table."""
    kernels: tuple[str, ...] = ()
    """The matrix: series, releases or package versions."""

    include: tuple[str, ...] = ()
    """Globs of what travels to a guest; empty for all that git knows, or all files without git."""
    exclude: tuple[str, ...] = ()
    """Globs of what does not, although `include` or git names it."""
    products: tuple[str, ...] = ()
    """Globs of build products: they travel whether git ignores them or not, and the guest proves
    their hash."""
    environment_exclude: tuple[str, ...] = ()
    """Packages of this Python's environment that a guest need not have."""
    plugins: tuple[str, ...] | None = None
    """Plugins of pytest that load in a guest; None for those that the host has loaded."""
    setup: tuple[str, ...] = ()
    """A command that runs in each guest, in the tree, before the first test."""

    probe: tuple[str, ...] = ()
    """Prints as JSON what a kernel was observed to do; empty for no probe and no contract."""
    mask_variable: str = ""
    """The environment variable by which the probe is told what to do without."""
    contract: str = ""
    """The file of what each series is promised."""
    skips_need_proof: bool = False
    """Whether a skip counts only where probe and contract confirm it, and an xfail never."""
    issues: str = ""
    """The file that says in which kernel versions issues were mended."""
    errata: Errata | None = None
    dmesg_allow: str = ""
    """The file of kernel messages that are no complaint, besides the lab's own."""
    by_make: bool = False
    """Whether this repository's Makefile has a target `lab` that takes KERNEL, AS, LAUNCHER, SLOW,
    T and ARGS: the lines that run a test again are for it, and for the lab's command otherwise."""
    lock: str = ""
    """The repository's lock of kernels; empty for none: kernels are vouched for by the archive."""

    guest: Wishes = field(default_factory=Wishes)
    """What each guest is to have: processors, memory, modules, devices, sysctls, and words for the
    kernel's command line."""
    programs: tuple[Program, ...] = ()

    def path(self, name: str) -> Path:
        """A file of the repository that one of the keys names."""
        return self.root / name
