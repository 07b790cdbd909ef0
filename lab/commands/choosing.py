# SPDX-License-Identifier: MIT
"""The options by which a command is told its kernel."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import kernels
from ..errors import UsageError
from ..kernels import Flavour, Kernel
from ..vm import Launcher


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--kernel`, `--kernel-file` and `--modules`."""
    parser.add_argument(
        "--kernel",
        action=Once,
        metavar="NAME",
        help="a series (6.12), a release (6.12.94), a package version, or what uname -r says",
    )
    parser.add_argument(
        "--kernel-file",
        action=Once,
        type=Path,
        metavar="FILE",
        help="a kernel image of your own instead",
    )
    parser.add_argument(
        "--modules",
        action=Once,
        type=Path,
        metavar="DIR",
        help="its modules: the directory made by make modules_install INSTALL_MOD_PATH=DIR",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add `--launcher`."""
    parser.add_argument(
        "--launcher",
        type=Launcher,
        choices=tuple(Launcher),
        default=Launcher.QEMU,
        help="vng: boot with virtme-ng, this machine's own files as root, read-only",
    )


def name_of(arguments: argparse.Namespace) -> str:
    """The name for `lab.kernels.resolve` that the options say. Raises UsageError."""
    named, file, modules = arguments.kernel, arguments.kernel_file, arguments.modules
    if (named is None) == (file is None):
        raise UsageError("one of --kernel and --kernel-file is needed, and not both")
    if file is None:
        if modules is not None:
            raise UsageError("--modules goes with --kernel-file")
        return str(named)
    # A name with a slash is a file; see lab.kernels.local.
    return f"{file.absolute()}" + (f":{modules.absolute()}" if modules else "")


def kernel_of(arguments: argparse.Namespace, *, flavour: Flavour | None = None) -> Kernel:
    """The kernel that the options name. Raises UsageError, KernelUnavailable."""
    return kernels.resolve(name_of(arguments), flavour=flavour)
