# SPDX-License-Identifier: MIT
"""The options by which a command is told what a kernel is to be built like."""

from __future__ import annotations

import argparse
import os

from .order import BASES, DEFCONFIG, Order, setting


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--base` and so on."""
    parser.add_argument(
        "--base",
        choices=BASES,
        default=DEFCONFIG,
        help="the configuration to begin with; cloud: Debian's of the nearest series (defconfig)",
    )
    parser.add_argument(
        "--flavour", choices=("debug",), help="a kernel that looks for bugs in itself, and is slow"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="SYMBOL=VALUE",
        help="of the configuration; repeatable",
    )
    parser.add_argument(
        "--debug-info", action="store_true", help="with debug information, in vmlinux.debug"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="compilers at once (one for each processor)",
    )


def order_of(arguments: argparse.Namespace) -> Order:
    """What those options ask for. Raises UsageError."""
    return Order(
        base=arguments.base,
        debug=arguments.flavour == "debug",
        debug_info=arguments.debug_info,
        settings=dict(map(setting, arguments.settings)),
        jobs=arguments.jobs,
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)
