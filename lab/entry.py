# SPDX-License-Identifier: MIT
"""What pytest loads of an installed lab: nothing, until an option of the lab's asks for more.

An environment with the lab in it runs everybody's tests as one without it: no option, marker,
fixture or exit code is the lab's there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator

import pytest

PREFIX = "--lab-"
"""Begins each of the lab's options."""
PLUGIN = f"{__package__}.suite.plugin"


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the lab's plugin, if it is asked for; it adds its options itself."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and _asked(config) and not pluginmanager.has_plugin(PLUGIN):
        with _Clash():
            pluginmanager.register(importlib.import_module(PLUGIN), PLUGIN)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Say in one sentence that an option of the repository's has the name of one of the lab's."""
    if early_config.pluginmanager.has_plugin(PLUGIN):
        with _Clash():
            yield
    else:
        yield


def pytest_configure(config: pytest.Config) -> None:
    """A repository that has a table for the lab may use its markers."""
    if config.pluginmanager.has_plugin(PLUGIN) or not _has_table(config):
        return
    for marker in importlib.import_module(PLUGIN).MARKERS:
        config.addinivalue_line("markers", marker)


class _Clash:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # "option names {'--lab-as'} already added", or from pytest 9.1 on "option dest 'lab_as'
        # already used by --lab-as; ...".
        if isinstance(error, ValueError) and " already " in str(error):
            said = str(error).partition("; ")[0]
            raise pytest.UsageError(
                "a plugin or conftest.py of this repository has an option that the lab has: "
                f"{said}; options that begin with {PREFIX} are the lab's, so give yours another "
                "name"
            ) from error


def _asked(config: pytest.Config) -> bool:
    """Whether an option of the lab's is on the command line, in PYTEST_ADDOPTS or in addopts."""
    given = [str(word) for word in config.invocation_params.args]
    given.append(os.environ.get("PYTEST_ADDOPTS", ""))
    given += config.getini("addopts")
    return any(PREFIX in word for word in given)


def _has_table(config: pytest.Config) -> bool:
    root = config.rootpath
    if (root / "lab.toml").is_file():
        return True
    try:
        return "[tool.lab" in (root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
