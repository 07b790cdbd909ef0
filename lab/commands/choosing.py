# SPDX-License-Identifier: MIT
"""The options by which a command is told its kernel and what its guest is to have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import kernels
from ..errors import UsageError
from ..kernels import Flavour, Kernel
from ..project import Project
from ..vm import LAUNCHERS, USUAL, Launcher, launcher_named
from ..wishes import KEYS, Wishes, from_options


class Once(argparse.Action):
    """An option with one value: given twice, the first one would be lost without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None and before != values:
            parser.error(
                f"{option_string} was given twice, {str(before)!r} and {str(values)!r}: "
                "a run is on one kernel"
            )
        setattr(namespace, self.dest, values)


class _File(argparse.Action):
    """A kernel image of one's own; there may be several, each with the modules behind it."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option_string: str | None = None,
    ) -> None:
        files = [*(namespace.kernel_file or ()), (values, None)]
        if len(files) == 1 and namespace.module_directory is not None:
            files, namespace.module_directory = [(values, namespace.module_directory)], None
        namespace.kernel_file = files


class _Modules(argparse.Action):
    """The modules of the kernel image named before, or of the first one if none was."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option_string: str | None = None,
    ) -> None:
        files = namespace.kernel_file
        before = files[-1][1] if files else namespace.module_directory
        if before is not None:
            parser.error(
                f"--modules {before} and --modules {values} are of one kernel: each stands behind "
                "the --kernel-file whose modules it names"
            )
        if files:
            namespace.kernel_file = [*files[:-1], (files[-1][0], values)]
        else:
            namespace.module_directory = values


def add_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--kernel`, `--kernel-file` and `--modules`; with `several`, all may be repeated and
    absent, see `names_of`."""
    parser.add_argument(
        "--kernel",
        action="append" if several else Once,
        metavar="NAME",
        help="a series (6.12), a release (6.12.94), a package version, or what uname -r says"
        + (
            "; a pattern (6.1*); all: those of the table; every: each release that is offered; "
            "repeatable; without it, all"
            if several
            else ""
        ),
    )
    parser.add_argument(
        "--kernel-file",
        action=_File if several else Once,
        type=Path,
        metavar="FILE",
        help="a kernel image of your own"
        + ("; repeatable, also beside --kernel" if several else " instead"),
    )
    parser.add_argument(
        "--modules",
        dest="module_directory",
        action=_Modules if several else Once,
        type=Path,
        metavar="DIR",
        help="its modules: the directory made by make modules_install INSTALL_MOD_PATH=DIR",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add `--launcher`."""
    parser.add_argument(
        "--launcher",
        choices=tuple(LAUNCHERS),
        default=USUAL.name,
        help="vng: boot with virtme-ng, this machine's own files as root, read-only",
    )


def launcher_of(arguments: argparse.Namespace) -> Launcher:
    """The launcher that the options name."""
    return launcher_named(arguments.launcher)


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """Add what a guest is asked for: `--cpus` and so on."""
    group = parser.add_argument_group("what the guest has")
    group.add_argument("--cpus", metavar="N", help="processors (1)")
    group.add_argument("--memory", metavar="SIZE", help="in MiB, or like 2G (768M)")
    for key, option, metavar, help in (
        ("sysctl", "--sysctl", "NAME=VALUE", "set before anything runs"),
        ("modules", "--module", "NAME", "a kernel module, loaded before anything runs"),
        ("cmdline", "--append", "WORDS", "for the kernel's command line, behind the lab's own"),
        ("devices", "--device", "DEVICE", "network-pair, or what QEMU's -device takes"),
    ):
        group.add_argument(
            option, dest=key, action="append", metavar=metavar, help=f"{help}; repeatable"
        )


def wishes_of(arguments: argparse.Namespace) -> Wishes:
    """What those options ask for. Raises UsageError."""
    # --modules, where the modules of a kernel of one's own are, has another name there.
    return from_options({key: getattr(arguments, key) for key in KEYS})


def name_of(arguments: argparse.Namespace) -> str:
    """The name for `lab.kernels.resolve` that the options say. Raises UsageError."""
    named, file, modules = (
        arguments.kernel,
        arguments.kernel_file,
        arguments.module_directory,
    )
    if (named is None) == (file is None):
        raise UsageError("one of --kernel and --kernel-file is needed, and not both")
    if file is None:
        if modules is not None:
            raise UsageError("--modules goes with --kernel-file")
        return str(named)
    return _own(file, modules)


def _own(file: Path, modules: Path | None) -> str:
    """The name of a kernel image of one's own: a name with a slash is a file, see
    lab.kernels.local."""
    return f"{file.absolute()}" + (f":{modules.absolute()}" if modules else "")


def names_of(arguments: argparse.Namespace, project: Project | None) -> tuple[str, ...]:
    """The names of all kernels that the options of `lab test` say, in their order, each once.

    A `--kernel` may hold several names with spaces between them, as make hands them over. Those of
    `--kernel-file` come last. Without `--kernel` and `--kernel-file` they are the kernels of the
    repository's table. `project` is None where the table cannot be read. Raises UsageError.
    """
    if arguments.module_directory is not None:
        raise UsageError("--modules goes with --kernel-file")
    own = [_own(file, modules) for file, modules in arguments.kernel_file or ()]
    if arguments.kernel is None and not own:
        table = () if project is None else project.kernels
        if not table:
            raise UsageError(
                "no kernel is named",
                hint="name one with --kernel 6.12, or the kernels of this repository in the table: "
                'kernels = ["6.1", "6.12"]',
            )
        return kernels.matching(table)
    words = [word for given in arguments.kernel or () for word in kernels.split(given)]
    if not words and not own:
        raise UsageError("--kernel names no kernel")
    return kernels.matching([*words, *own], table=() if project is None else project.kernels)


def kernel_of(arguments: argparse.Namespace, *, flavour: Flavour | None = None) -> Kernel:
    """The kernel that the options name. Raises UsageError, KernelUnavailable."""
    return kernels.resolve(name_of(arguments), flavour=flavour)
