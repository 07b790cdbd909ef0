# SPDX-License-Identifier: MIT
"""Where a sweep's guests come from: the lab's own kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import KernelUnavailable
from ..facts.kernel import Kernel
from ..project import Project
from ..vm import USUAL, Guest, Launchpad, launcher_named
from .measure import Lab


class Cellar:
    """The kernels of the lab's sources, in guests as the repository has them."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def guests(self, kernel: Kernel) -> Lab:
        """The way to guests of exactly this release."""
        return _Exactly(kernel, self._project)


class _Exactly:
    """Guests of one release: where the source gives another in its place, none."""

    def __init__(self, kernel: Kernel, project: Project) -> None:
        launcher = launcher_named(USUAL.name, project.environment_exclude)
        self._kernel, self._lab = kernel, Launchpad(kernel, launcher, wishes=project.guest)

    def prepare(self, results: Path) -> None:
        """As lab.errata.measure.Lab. Raises LabError."""
        self._lab.prepare(results)

    @contextmanager
    def boot(self, results: Path) -> Iterator[Guest]:
        """As lab.errata.measure.Lab. Raises LabError."""
        with self._lab.boot(results) as guest:
            if guest.kernel.package != self._kernel.package:
                raise KernelUnavailable(
                    f"{self._kernel.package} has left its source, "
                    f"{guest.kernel.package} came in its place"
                )
            yield guest
