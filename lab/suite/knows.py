# SPDX-License-Identifier: MIT
"""What a repository itself knows of a test that hangs, by its hook `pytest_lab_hang`; and how the
host gets that out of a guest.

The host sends a signal, and the test's own thread answers where Python runs its handlers: at once
where it waits in a system call. A guest imports this when it is asked: standard library and pytest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

FILE = "lab-hang"
"""The name of the file in memory with the answer."""
WHOLE = "these are all"
"""Its last line."""


def of_the_repository(config: pytest.Config) -> Iterator[tuple[str, str]]:
    """Parts of the evidence, each with its name; what fails is a part as well."""
    try:
        for parts in config.hook.pytest_lab_hang():
            yield from parts
    except Exception as error:
        yield "what the repository knows", failure(error)


def failure(error: Exception) -> str:
    """In the place of what could not be had."""
    return f"could not be had: {type(error).__name__}: {error}"


def answer(config: pytest.Config) -> None:
    """Write it into a file that the host finds among this process's descriptors."""
    file = os.memfd_create(FILE)  # no disk that a test has filled, nothing to remove
    text = "".join(part_of(name, text) for name, text in of_the_repository(config))
    with os.fdopen(file, "wb", closefd=False) as out:
        out.write(f"{text}{WHOLE}\n".encode("utf-8", "backslashreplace"))


def part_of(name: str, text: str) -> str:
    """A part of the evidence as it stands in its file."""
    return f"\n==== {name}\n{text.rstrip()}\n"
