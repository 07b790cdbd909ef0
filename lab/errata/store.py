# SPDX-License-Identifier: MIT
"""Where a sweep's guests come from: the lab's own kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import KernelUnavailable
from ..facts.kernel import Kernel
from ..vm import Guest, Launchpad
from .measure import Lab


class Cellar:
    """The kernels of the lab's sources."""

    def guests(self, kernel: Kernel) -> Lab:
        """The way to guests of exactly this release."""
        return _Exactly(kernel)


class _Exactly:
    """Guests of one release: where the source gives another in its place, none."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._lab = kernel, Launchpad(kernel)

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
