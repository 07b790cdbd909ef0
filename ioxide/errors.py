# SPDX-License-Identifier: MIT
"""The exceptions that ioxide raises of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One value that cannot be used: the field's name, the value, and what it should be."""

    field: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.field}={self.value!r}: {self.rule}"


class ConfigError(ValueError):
    """Some configuration values cannot be used; `problems` has one entry for each of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class RingError(OSError):
    """A ring could not be made; the message says why and what to do."""


class UnsupportedError(RingError):
    """This kernel lacks what a configuration value asks for; the message names both."""


class ReactorError(RuntimeError):
    """A reactor ended by itself; ``__cause__`` is what ended it."""


class StoppedError(RuntimeError):
    """The reactor is stopped or stopping, and takes nothing any more."""


class DeadlockError(RuntimeError):
    """A wait that could never end, because the waiting thread itself would have to end it."""


class RecordError(ValueError):
    """A file that is no record, or one that this version cannot read."""
