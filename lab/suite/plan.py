# SPDX-License-Identifier: MIT
"""What passes between the host's plugin, the session of guests and the worker in a guest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..facts.evidence import Part
from ..facts.kernel import Kernel
from ..remote.identity import Expected
from ..rules.dmesg import Allowance, Splat
from ..vm import Guest
from ..wishes import Wishes


class Lab(Protocol):
    """Gives guests of one kernel."""

    def prepare(self, results: Path) -> object:
        """Fetch and build what all guests share, so that `boot` is quick. Raises LabError."""

    def side_by_side(self, others: Iterable[Wishes] = ()) -> int:
        """How many guests at once suit this machine, if some have `others`' wishes; asked once it
        is prepared."""

    def at_most(self, others: Iterable[Wishes] = ()) -> int:
        """How many guests at once this machine has room for, if one has `others`' wishes;
        asked once it is prepared."""

    def boot(
        self, results: Path, *, wishes: Wishes, interrupt: int | None = None
    ) -> AbstractContextManager[Guest]:
        """A fresh guest with these wishes whose files go to `results`, for the thread that calls.
        Once the descriptor `interrupt` is readable, waiting for it raises KeyboardInterrupt.

        Raises LabError.
        """


class Listener(Protocol):
    """Who wants to know what is going on, while it goes on."""

    def phase(self, text: str) -> None:
        """The run enters a phase that is not a test."""

    def tick(self) -> None:
        """Time passes and the guest is silent; called about once a second."""


class Caller(Listener, Protocol):
    """Whose thread a session runs on."""

    def visit(self, visit: Visit) -> None:
        """Have the host run this test; returns when it has. Raises KeyboardInterrupt."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the host decided before the first guest boots."""

    kernel: Kernel
    selected: Sequence[str]
    on_host: frozenset[str]
    """Those of them that run on the host and ask a guest; no guest collects them."""
    subset: bool
    """The guest may collect more than was selected (--lf and its like look in a host's cache)."""
    arguments: Sequence[str]
    """pytest's arguments in the guest."""
    tar: bytes
    tree_sha256: str
    extension_sha256: str
    bytecode_sha256: str
    environment: Mapping[str, str]
    """What the probe and pytest in the guest find in their environment: where Python finds modules,
    and the mask."""
    probe: Sequence[str]
    """The command that prints what the kernel can do; empty for none."""
    setup: Sequence[str]
    """A command that each guest runs before its first pytest; empty for none."""
    allowed: Sequence[Allowance]
    """The repository's own messages of the kernel that are no complaint."""
    programs: Mapping[str, Any]
    """What pytest in the guest is told of the repository's programs."""
    wishes: Wishes
    """What every guest is to have."""
    own_wishes: Mapping[str, Wishes]
    """The wishes of tests that asked for another guest, by their ids."""
    root: Path
    """Of the repository; what tests leave for it comes here."""
    results: Path
    test_seconds: Callable[[str, float], float]
    """Time limit of a test, in host seconds, given its id and the guest's slowdown."""
    times: int = 1
    """How often the selection is run."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long tests took the last time, by their ids, as far as that is known."""
    keep_order: bool = False
    """The order of the selection was asked for."""
    dump: bool = False
    """The memory of a guest is wanted whose test hung, or whose kernel complained."""

    def wishes_of(self, name: str) -> Wishes:
        """What the guest of this test is to have."""
        return self.own_wishes.get(name, self.wishes)

    def expected(self, guest: Guest) -> Expected:
        """Who runs in this guest."""
        return Expected(
            kernel=guest.kernel.upstream,
            release=guest.kernel.release,
            nonce=guest.nonce,
            tree_sha256=self.tree_sha256,
            extension_sha256=self.extension_sha256,
            bytecode_sha256=self.bytecode_sha256,
        )


@dataclass(slots=True)
class Outcome:
    """What came home about one test."""

    reports: list[Mapping[str, Any]] = field(default_factory=list)
    started: bool = False
    lost: str = ""
    """Why there is no verdict, as a sentence; empty if there is one."""
    splats: list[Splat] = field(default_factory=list)
    """Every complaint of the kernel while it ran."""
    sections: list[tuple[str, str]] = field(default_factory=list)
    guest: Guest | None = None
    """In which it ran."""
    guest_is_up: bool = False
    """Whether that guest is still there."""
    began: float = 0.0
    """By `time.monotonic()`."""
    kernel_log: Part | None = None
    """What the kernel wrote while it ran."""
    hang: Part | None = None
    """What was found where it hung."""
    memory: str = ""
    """What came of its guest's memory, as a clause; empty if that was not asked for."""


@dataclass(slots=True)
class Visit:
    """A test that runs on the host, and the guest that it alone may ask meanwhile."""

    name: str
    following: str | None
    """The test behind it, which may share what is dear to set up."""
    guest: Guest
    seconds: float
    """How long the test may take."""
    outcome: Outcome
    """Filled in by the host."""
    over: bool = False
    """Whether it ran to its end, whatever came of it."""
    hung: str = ""
    """Why it was ended, if it did not end in time."""
