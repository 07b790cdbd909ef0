# SPDX-License-Identifier: MIT
"""Options that are not pytest's own, as somebody typed them.

A conftest.py or a plugin may give its options any action and type, so what pytest made of the words
cannot be turned into words again.  The words are read a second time, by the same rules, and kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import pytest

_NO_VALUE = object()


@dataclass(frozen=True, slots=True)
class Typed:
    """One option on a command line, in PYTEST_ADDOPTS or in addopts."""

    name: str
    """Of its attribute."""
    flag: str
    values: Sequence[str] | None
    """None for an option without a value."""

    @property
    def words(self) -> list[str]:
        """The words for another command line, where an option follows them."""
        if self.values is None:
            return [self.flag]
        if len(self.values) != 1:
            return [self.flag, *self.values]
        # A value may begin with a dash.
        equals = "=" if self.flag.startswith("--") else ""
        return [f"{self.flag}{equals}{self.values[0]}"]


def typed(config: pytest.Config) -> list[Typed]:
    """All options that somebody typed, in the order in which pytest reads them."""
    return read(config, [*config.getini("addopts"), *_of_this_run(config)])[0]


def typed_for_this_run(config: pytest.Config) -> list[Typed]:
    """Those of a command line and PYTEST_ADDOPTS, not those that the settings add to each run."""
    return read(config, _of_this_run(config))[0]


def _of_this_run(config: pytest.Config) -> list[str]:
    return [
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *map(str, config.invocation_params.args),
    ]


def read(config: pytest.Config, words: Sequence[str]) -> tuple[list[Typed], list[str]]:
    """The options and the paths and ids among these words, each in their order. Raises
    pytest.UsageError for an option without its value."""
    found: list[Typed] = []

    class Keep(argparse.Action):
        def __call__(
            self, _parser: Any, _namespace: Any, values: Any, option_string: str | None = None
        ) -> None:
            if values is _NO_VALUE or self.nargs == 0:
                values = None
            elif isinstance(values, str):
                values = [values]
            found.append(Typed(self.dest, option_string or "", values))

    class Reader(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise pytest.UsageError(message)

    # As pytest's own, which takes no abbreviation, and arguments from a file named by @FILE.
    reader = Reader(allow_abbrev=False, add_help=False, fromfile_prefix_chars="@")
    for action in _parser(config)._actions:
        if action.option_strings:
            more: dict[str, Any] = {"const": _NO_VALUE} if action.nargs == argparse.OPTIONAL else {}
            reader.add_argument(
                *action.option_strings, dest=action.dest, action=Keep, nargs=action.nargs, **more
            )
    reader.add_argument("file_or_dir", nargs="*")
    known, _ = reader.parse_known_args(list(words))
    return found, list(known.file_or_dir)


def definer(config: pytest.Config, name: str) -> tuple[str, ModuleType] | None:
    """The plugin that has added the option with this attribute, and what pytest calls it; None if
    that is no module.

    pytest keeps no record of it, so each plugin is asked once more, with a parser and a manager of
    its own: what it adds there disturbs nobody.
    """
    for hook in config.pluginmanager.hook.pytest_addoption.get_hookimpls():
        if not isinstance(hook.plugin, ModuleType):
            continue
        scratch = pytest.Parser(_ispytest=True)
        given = {"parser": scratch, "pluginmanager": pytest.PytestPluginManager()}
        with contextlib.suppress(Exception):  # whatever a plugin says of being asked twice
            hook.function(*(given[argument] for argument in hook.argnames))
        groups = [scratch._anonymous, *scratch._groups]
        if any(option.dest == name for group in groups for option in group.options):
            return hook.plugin_name, hook.plugin
    return None


def _parser(config: pytest.Config) -> argparse.ArgumentParser:
    """What reads the command line: an attribute from pytest 9 on, made each time before."""
    parser = config._parser
    made: argparse.ArgumentParser = (
        parser._getparser() if hasattr(parser, "_getparser") else parser.optparser
    )
    return made
