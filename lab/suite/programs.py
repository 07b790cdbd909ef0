# SPDX-License-Identifier: MIT
"""The repository's programs in one run: which of them the host asked for, and what a guest is told.

A guest does not look for programs itself. It is told which there are, because what lists them (a
Makefile, say) may need what only the host has; that the very files arrived is proved by the hash of
the tree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..programs import items
from ..programs.listing import paths_of, programs_of
from ..programs.spec import ProgramTest
from ..project import Project


class HostPrograms:
    """The programs that a run is about, and their part in pytest's arguments."""

    def __init__(self, config: pytest.Config, project: Project) -> None:
        """Take the arguments that name programs away from pytest. Raises UsageError."""
        self.tests: Sequence[ProgramTest] = programs_of(
            project, limit=config.getoption("lab_timeout")
        )
        self.words: list[str] = []
        """The arguments that named them."""
        if self.tests and config.args_source is pytest.Config.ArgsSource.ARGS:
            self.words, config.args[:] = items.split_arguments(
                config.args, [test.name for test in self.tests], config.invocation_params.dir
            )
            here = config.invocation_params.dir
            named = [Path(os.path.normpath(here / argument)) for argument in config.args]
            directories = [place for place in named if place.is_dir()]
            self.tests = items.chosen(self.tests, self.words, directories, project.root)
        self.alone = bool(self.words) and not config.args
        """Whether nothing of pytest's own is to be collected."""
        if self.tests:
            config.pluginmanager.register(items.ProgramsSide(self.tests), "lab-programs")

    def with_files(self, project: Project) -> Project:
        """The project whose tree has them: they are build products, which git may ignore."""
        files = (*project.products, *paths_of(self.tests))
        return replace(project, products=files) if self.tests else project

    def to_object(self) -> dict[str, Any]:
        """What a guest is told; nothing where there are none."""
        if not self.tests:
            return {}
        return {"tests": [test.to_object() for test in self.tests], "alone": self.alone}
