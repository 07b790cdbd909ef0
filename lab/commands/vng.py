# SPDX-License-Identifier: MIT
"""`--launcher vng`: the same kernels, booted by virtme-ng with this machine's files as root."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab import kernels, vm
from lab.errors import UsageError
from lab.kernels import Flavour, Kernel, KernelFiles
from lab.vm import virtme

from . import choosing
from .booting import say


def run(arguments: argparse.Namespace) -> int:
    """Run a command; its exit status. Raises LabError, TimeoutError."""
    from .run import environment

    files, accel = _chosen(arguments)
    return virtme.run(
        files,
        arguments.argv,
        accel=accel,
        cwd=arguments.copy[-1].absolute() if arguments.copy else Path.cwd(),
        cpus=arguments.cpus,
        memory_mib=arguments.memory,
        env=environment(arguments.env),
        timeout_s=arguments.timeout,
    )


def shell(arguments: argparse.Namespace) -> int:
    """An interactive shell. Raises LabError."""
    files, accel = _chosen(arguments)
    return virtme.shell(files, accel=accel, cpus=arguments.cpus, memory_mib=arguments.memory)


def _chosen(arguments: argparse.Namespace) -> tuple[KernelFiles, vm.Accel]:
    if arguments.results is not None:
        raise UsageError("--results: virtme-ng keeps no logs; leave out --launcher vng")
    virtme.program()  # before a download of a hundred megabytes, not after
    files = kernels.obtain(_with_9p(choosing.kernel_of(arguments)))
    accel = vm.choose_accel(files)
    say(f"{files.kernel}, {accel.kind}, by virtme-ng")
    return files, accel


def _with_9p(kernel: Kernel) -> Kernel:
    """The same release as a kernel that virtme-ng can boot here: Debian's cloud flavour has not
    the file system its root comes over."""
    if kernel.flavour is not Flavour.CLOUD:
        return kernel
    return kernels.resolve(kernel.package, flavour=Flavour.FULL)
