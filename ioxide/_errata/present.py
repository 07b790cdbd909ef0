# SPDX-License-Identifier: MIT
"""What a reproducer is, and how it says that this kernel has its erratum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Function = Callable[[], None]


class ErratumPresent(Exception):
    """The kernel shows this erratum; raised by its own reproducer and by nothing else.

    The lab knows it by its name and its attributes.

    :param id: as in the table of errata, "IOX-ERR-001".
    :param evidence: what was seen, in one line.
    """

    def __init__(self, id: str, evidence: str) -> None:
        super().__init__(f"{id}: {evidence}")
        self.id = id
        self.evidence = evidence


class NotTried(Exception):
    """This process may not do what provokes the erratum; the text says what that is."""


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A function that raises ErratumPresent where the kernel has the erratum, and returns where it
    has not; any other exception says that the defect was not provoked."""

    id: str
    run: Function
    harm: str
    """What a kernel that has the erratum suffers of it, for good; empty for nothing."""


REPRODUCERS: dict[str, Reproducer] = {}
"""By erratum; complete once `ioxide._errata.every` is imported."""
_NEEDED: dict[Function, tuple[str, ...]] = {}


def reproducer(
    id: str, *, needs: tuple[str, ...] = (), harm: str = ""
) -> Callable[[Function], Function]:
    """Make a function the reproducer of an erratum.

    :param needs: capabilities (`ioxide.Capability`) without which it cannot be provoked.
    :param harm: see `Reproducer`.
    """

    def entered(function: Function) -> Function:
        if id in REPRODUCERS:
            raise ValueError(f"{id} has two reproducers: {REPRODUCERS[id].run}, {function}")
        REPRODUCERS[id] = Reproducer(id, function, harm)
        _NEEDED[function] = needs
        return function

    return entered


def control(*, needs: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Make a function the control of a reproducer: it must hold on every kernel."""

    def entered(function: Function) -> Function:
        _NEEDED[function] = needs
        return function

    return entered


def needed_by(function: Function) -> tuple[str, ...]:
    """The capabilities without which a reproducer or control cannot run."""
    return _NEEDED[function]
