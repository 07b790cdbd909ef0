# SPDX-License-Identifier: MIT
"""Which of the words that somebody typed leave tests out.

A run says them in its results, and a plan says which its runs are to be given: `lab check` compares
both. Options of plugins are not known here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pytest

from .stash import PLUGIN
from .typed_options import Typed, read, typed_for_this_run

_EXPRESSIONS = {"keyword": "-k", "markexpr": "-m"}
"""Of several the last one holds."""
_EACH = {
    "deselect": "--deselect",
    "ignore": "--ignore",
    "ignore_glob": "--ignore-glob",
    "inifilename": "--config-file",
}
OF_CACHE = {"lf": "--lf", "stepwise": "--sw", "stepwise_skip": "--sw-skip"}
"""By what the cache remembers of the last run."""
_SETTINGS = frozenset(
    (
        "addopts",
        "collect_imported_tests",
        "norecursedirs",
        "python_classes",
        "python_files",
        "python_functions",
        "testpaths",
    )
)
"""Which files and names are tests, where `-o` says so."""
_COLLECTORS = frozenset(("no:doctest", "no:python", "no:unittest"))
"""What `-p` takes away of what collects tests."""


def options(config: pytest.Config) -> list[str]:
    """The options that leave tests out of this run and not of every run of the repository, but for
    those in `remembered`."""
    return _options(typed_for_this_run(config))


def remembered(config: pytest.Config) -> list[str]:
    """The options of this run that leave tests out by what the cache remembers."""
    return _of_cache(typed_for_this_run(config))


def of_words(words: Sequence[str]) -> list[str]:
    """What remains of these arguments when all that leaves no test out is gone, as a run with them
    would say it. Raises pytest.UsageError."""
    from _pytest.config import get_config

    config = get_config(None, [PLUGIN])
    # So that the value of a plugin's option is taken for no path.
    config.pluginmanager.load_setuptools_entrypoints("pytest11")
    found, paths = read(config, words)
    return [*_options(found), *_of_cache(found), *paths]


def _options(typed: Sequence[Typed]) -> list[str]:
    words: list[str] = []
    for name, flag in _EXPRESSIONS.items():
        given = [value for one in typed if one.name == name for value in one.values or ()]
        words += [flag, given[-1]] if given and given[-1] else []
    for one in typed:
        for value in one.values or ():
            if one.name in _EACH and value != os.devnull:
                words.append(f"{_EACH[one.name]}={value}")
            elif one.name == "override_ini" and value.partition("=")[0].strip() in _SETTINGS:
                words += ["-o", value]
            elif one.name == "plugins" and value in _COLLECTORS:
                words += ["-p", value]
    return words


def _of_cache(typed: Iterable[Typed]) -> list[str]:
    names = {one.name for one in typed}
    return [flag for name, flag in OF_CACHE.items() if name in names]
