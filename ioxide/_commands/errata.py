# SPDX-License-Identifier: MIT
"""``ioxide errata``: what is broken in io_uring of a kernel."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioxide import errata
from ioxide._errata.table import BAD, GOOD, shipped

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_parser", "run"]

_OF_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_SHOWN = (errata.State.BAD, errata.State.LIKELY_BAD, errata.State.UNCLEAR)


def add_parser(subparsers: Subparsers) -> None:
    """Add the ``errata`` command."""
    parser = subparsers.add_parser(
        "errata",
        help="what is known to be broken in io_uring of a kernel",
        description="Defects of io_uring that were measured on released kernels.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every erratum, and on how many releases it is there")
    checking = actions.add_parser(
        "check",
        help="what is known of this kernel, or of a release",
        description=(
            "Answers from what was measured; a release that was not is answered by its neighbours. "
            "Exit status: 0 answered, 1 something could not be tried here (--try), 2 it is no "
            "release of a kernel."
        ),
    )
    checking.add_argument(
        "release", nargs="?", metavar="RELEASE", help="as uname -r prints it; this kernel without"
    )
    checking.add_argument(
        "--try",
        dest="attempt",
        action="store_true",
        help="run the reproducers on this kernel instead, each in a process of its own",
    )
    for action in (listing, checking):
        action.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or check, and print; the exit status."""
    if args.action == "list":
        return _list(as_json=args.json)
    if args.attempt:
        return _try(args.release, as_json=args.json)
    try:
        report = errata.check(args.release)
    except ValueError as error:
        print(f"ioxide: {error}", file=sys.stderr)
        return 2
    if args.json:
        answers = [
            {"id": a.erratum.id, "title": a.erratum.title, "state": a.state, "why": a.why}
            for a in report.answers
        ]
        _print({"release": report.release, "about": report.about, "answers": answers})
        return 0
    print(report.about)
    if len(report.of(errata.State.UNCLEAR)) < len(report.answers):
        for answer in report.of(*_SHOWN):
            why = "" if answer.state == errata.State.BAD else f" ({answer.why})"
            print(f"{answer.erratum.id}  {answer.state:<10}  {answer.erratum.title}{why}")
    print(_counted(report))
    return 0


def _counted(report: errata.Report) -> str:
    counts = [(len(report.of(state)), state) for state in errata.State]
    return "Of {} errata: {}.".format(
        len(report.answers), ", ".join(f"{count} {state}" for count, state in counts if count)
    )


def _list(*, as_json: bool) -> int:
    releases = shipped().releases
    known = []
    for erratum in errata.errata():
        found = [row.found.get(erratum.id) for row in releases]
        known.append((erratum, found.count(BAD), found.count(BAD) + found.count(GOOD)))
    if as_json:
        _print(
            [
                {
                    "id": erratum.id,
                    "title": erratum.title,
                    "spoils": erratum.spoils,
                    "reported": erratum.reported,
                    "links": erratum.links,
                    "bad": bad,
                    "measured": measured,
                }
                for erratum, bad, measured in known
            ]
        )
        return 0
    for erratum, bad, measured in known:
        print(f"{erratum.id}  {bad:>2} of {measured:<2}  {erratum.title}")
    return 0


def _try(release: str | None, *, as_json: bool) -> int:
    if release is not None:
        print("ioxide: --try asks the running kernel, so leave the release out", file=sys.stderr)
        return 2
    try:
        found = errata.attempt()
    except OSError as error:
        what = str(error)
        if error.errno is not None:  # otherwise the probe's own sentence
            what = f"the reproducers cannot be started: {os.strerror(error.errno)}"
            if error.filename is not None:
                what += f": {error.filename}"
            elif error.errno in _OF_LIMITS:
                what += (
                    "; a higher limit on descriptors (ulimit -n) or processes (ulimit -u) may help"
                )
        print(f"ioxide: {what}", file=sys.stderr)
        return 1
    if as_json:
        tried = [{"id": one.id, "outcome": one.outcome, "why": one.why} for one in found]
        _print({"release": os.uname().release, "tried": tried})
    else:
        _print_tried(found)
    return int(any(one.outcome == "failed" for one in found))


def _print_tried(found: Sequence[errata.Tried]) -> None:
    titles = {entry.id: entry.title for entry in shipped().errata}
    print(f"tried on {os.uname().release}:")
    for one in found:
        if one.outcome not in ("good", "not applicable"):
            print(f"{one.id}  {one.outcome:<14}  {titles.get(one.id, '')}: {one.why}")
    good = sum(one.outcome == "good" for one in found)
    print(f"{good} of {len(found)} are not there", end="")
    lacking = sum(one.outcome == "not applicable" for one in found)
    print(f", {lacking} spoil what this kernel has not." if lacking else ".")


def _print(what: object) -> None:
    print(json.dumps(what, indent=2))
