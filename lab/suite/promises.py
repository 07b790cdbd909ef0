# SPDX-License-Identifier: MIT
"""What the kernel of one run is promised, perhaps while it plays an older one: the contract as the
host's side of a run asks it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..facts.kernel import Flavour
from ..facts.probed import Finding, Probed
from ..project import Project
from ..rules import contract
from ..rules.contract import Comparison, Row

if TYPE_CHECKING:
    from ..facts.kernel import Kernel


class Promises:
    """The contract of one kernel in guests.

    `plays` is the older series it is to play, if any. Raises UsageError when it cannot play that,
    or when this process has a mask of its own, and LabError when the contract cannot be read.
    """

    def __init__(self, project: Project, kernel: Kernel, plays: str | None) -> None:
        if project.mask_variable and os.environ.get(project.mask_variable):
            raise UsageError(
                f"{project.mask_variable} is for this machine's own kernel, and does not reach a "
                "guest",
                hint="unset it, and let the guest's kernel play an older one with --as 6.6",
            )
        self._project, self._kernel = project, kernel
        self._contract = contract.of(project)
        release = contract.upstream_of_release(kernel.upstream)
        debug = kernel.flavour is Flavour.DEBUG
        self.row: Row | None = None
        """What it is promised; None if the contract has no row for so old a kernel."""
        if plays is not None and not (project.contract and project.mask_variable):
            raise UsageError(
                f"--as {plays}: a kernel plays an older one by a contract and a mask-variable, "
                "and this repository's table has not both"
            )
        if plays is not None:
            self.row = self._contract.playing(release, plays, debug=debug)
        elif release:
            self.row = self._contract.row(release, debug=debug)

    @property
    def plays(self) -> str:
        """The older series it plays; empty if it is itself."""
        return self.row.plays if self.row is not None else ""

    @property
    def cell(self) -> str:
        """The kernel's name in reports: "6.12.107", or "6.12.107 as 6.6"."""
        title = self._kernel.title
        return f"{title} as {self.plays}" if self.plays else title

    @property
    def environment(self) -> dict[str, str]:
        """What a process in the guest must find in its environment."""
        mask = self.row.mask if self.row is not None else ""
        return {self._project.mask_variable: mask} if mask else {}

    def hopeless(self, names: Iterable[str]) -> str:
        """As `Contract.hopeless`; nothing is without a contract."""
        return self._contract.hopeless(names) if self._project.contract else ""

    def unconfirmed(self, name: str, finding: Finding) -> str:
        """As `contract.unconfirmed`, in a guest; without a contract the probe's word counts."""
        if not self._project.contract:
            return ""
        return contract.unconfirmed(self.row, name, finding, own_machine=False)

    def compare(self, probe: Probed | None) -> Comparison:
        """As `contract.compare`, in a guest; nothing is said of what was not probed."""
        if probe is None or not self._project.contract:
            return Comparison()
        if self.row is None:
            file = self._project.contract
            why = f"{file} has no row for a {self._kernel.upstream}: nothing was compared"
            return Comparison(notes=(why,))
        return contract.compare(self.row, probe, own_machine=False)
