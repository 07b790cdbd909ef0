# SPDX-License-Identifier: MIT
"""What becomes of each of pytest's options when the tests run in a guest.

An option is passed on, done on the host, or refused.  One that nobody here has heard of is refused:
to drop it in silence would run other tests than those that were asked for, or run them otherwise.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .. import project as projects
from ..errors import COMMAND
from . import coverage, typed_options
from .stash import PLUGIN, PROJECT

# fmt: off
ON_HOST = frozenset((
    # Which tests, in which order, and when the run ends.
    "maxfail", "lf", "failedfirst", "newfirst", "last_failed_no_failures", "stepwise",
    "stepwise_skip", "stepwise_reset", "cacheclear", "collectonly", "rootdir",
    # What people see, and files of the host.
    "durations", "durations_min", "no_header", "no_summary", "fold_skipped", "reportchars",
    "force_short_summary", "disable_warnings", "showcapture", "color", "code_highlight",
    "pastebin", "xmlpath", "junitprefix", "version", "help", "traceconfig", "debug",
    # How many guests there are at once; see at_once.py.
    "numprocesses", "maxprocesses", "tx", "dist", "distload",
    # A guest has these always, or takes them from the project's settings.
    "strict_config", "strict_markers", "strict", "disable_plugin_autoload",
))
# fmt: on
"""By the name of their attribute: nothing in a guest depends on them."""

SWITCHES: Mapping[str, str] = {
    "runxfail": "--runxfail",
    "showlocals": "--showlocals",
    "xfail_tb": "--xfail-tb",
    "fulltrace": "--full-trace",
    "noconftest": "--noconftest",
    "keepduplicates": "--keep-duplicates",
    "collect_in_virtualenv": "--collect-in-virtualenv",
    "doctestmodules": "--doctest-modules",
    "doctest_ignore_import_errors": "--doctest-ignore-import-errors",
    "doctest_continue_on_failure": "--doctest-continue-on-failure",
}
"""Passed on as they are."""

VALUES: Mapping[str, str] = {
    "capture": "--capture",
    "tbstyle": "--tb",
    "pythonwarnings": "--pythonwarnings",
    "keyword": "-k",
    "markexpr": "-m",
    "importmode": "--import-mode",
    "doctestreport": "--doctest-report",
    "doctestglob": "--doctest-glob",
    "assertmode": "--assert",
    "log_level": "--log-level",
    "log_format": "--log-format",
    "log_date_format": "--log-date-format",
    "log_auto_indent": "--log-auto-indent",
    "logger_disable": "--log-disable",
    "deselect": "--deselect",
    "ignore_glob": "--ignore-glob",
    "override_ini": "--override-ini",
}
"""Passed on with their value, or one after the other."""

ELSEWHERE = frozenset(
    ("verbose", "ignore", "inifilename", "file_or_dir", "continue_on_collection_errors", "plugins")
)
"""Passed on by `selection.guest_arguments`, which knows what becomes of paths, and by `plugins`."""

# fmt: off
HOST_PLUGINS = frozenset((
    # A guest has these always, or its settings name them.
    PLUGIN, "pytest_timeout", "timeout",
    # It keeps nothing, and the host gives each its tests.
    "cacheprovider", "xdist", "xdist.plugin",
    # Without these pytest would refuse the options that a guest is given.
    "terminal", "terminalreporter",
))
# fmt: on
"""Of what `-p` names, with or without `no:` before it, these stay with the host."""

XDIST_NAMES = f"{__package__}.xdist_names"
"""Stands in for pytest-xdist in a guest."""

PASSED = ("PYTHONWARNINGS",)
"""Environment variables that hold in a guest as they do here."""

_NO_TERMINAL = f"a guest has no terminal; use `{COMMAND} shell`"
_NO_TESTS = "it runs no test, so nothing could be proved"
_SHOWS = "it runs no test, so nothing could be proved; `python -m pytest` shows it without a guest"
_LOG = "nobody watches a guest's output while it runs; --log-level shows the log with the test"
_LIMITS = "the host limits the time of each test; use --lab-timeout SECONDS"
REFUSED: Mapping[str, str] = {
    "usepdb": _NO_TERMINAL,
    "usepdb_cls": _NO_TERMINAL,
    "trace": _NO_TERMINAL,
    "setuponly": _NO_TESTS,
    "setupplan": _NO_TESTS,
    "markers": _SHOWS,
    "showfixtures": _SHOWS,
    "show_fixtures_per_test": _SHOWS,
    "cacheshow": _SHOWS,
    "setupshow": "the guest's output is not shown while it runs",
    "pyargs": "a guest has the repository's tests, not those of installed packages",
    "confcutdir": "a guest has other directories above the repository",
    "basetemp": "the directory would be the guest's, and gone with it",
    "max_warnings": "warnings stay in the guest; -W error makes a failure of each",
    "log_cli_level": _LOG,
    "log_cli_format": _LOG,
    "log_cli_date_format": _LOG,
    "log_file": "the file would be the guest's, and gone with it; --log-level shows the log",
    "log_file_mode": _LOG,
    "log_file_level": _LOG,
    "log_file_format": _LOG,
    "log_file_date_format": _LOG,
    "timeout": _LIMITS,
    "timeout_method": _LIMITS,
    "timeout_disable_debugger_detection": _LIMITS,
    "session_timeout": "the host limits the time of each test; end the run with timeout(1)",
}
"""With the reason, and the way out where there is one."""


def given(config: pytest.Config) -> dict[str, Any]:
    """The options that differ from their defaults, whoever set them: a person, PYTEST_ADDOPTS or
    the project's addopts."""
    # The parser is not part of pytest's public interface, which has no word for a default.
    defaults = vars(config._parser.parse_known_args([]))
    return {
        name: value
        for name, value in vars(config.option).items()
        if name in defaults and value != defaults[name] and not name.startswith("lab_")
    }


def check(config: pytest.Config) -> None:
    """Raise pytest.UsageError for an option that no guest would be told of."""
    settings = config.inipath
    elsewhere = settings is not None and not settings.is_relative_to(config.rootpath)
    if elsewhere and settings != Path(os.devnull):
        raise pytest.UsageError(
            f"{settings}: a guest reads settings of the repository's own only; "
            "-o NAME=VALUE overrides one"
        )
    for name, value in given(config).items():
        if name in ON_HOST or name in SWITCHES or name in VALUES or name in ELSEWHERE:
            continue
        if name == "confcutdir" and Path(value) == config.rootpath:
            continue  # as it is in a guest
        if why := REFUSED.get(name, "") or _of_no_guest(config, name):
            raise pytest.UsageError(f"{_spelled(config, name, value)}: {why}")


def _of_no_guest(config: pytest.Config, name: str) -> str:
    """Why an option that is not pytest's own cannot hold in a guest; empty if it can."""
    if coverage.on_host(config, name):
        return ""
    found = typed_options.definer(config, name)
    if found is None or found[1].__name__.partition(".")[0] == "_pytest":
        return "no guest is told of this option, so it cannot hold there"
    plugin, module = found
    installed = any(module is one for one, _ in config.pluginmanager.list_plugin_distinfo())
    if plugin in HOST_PLUGINS or not _guest_has(config, plugin):
        return f"the option is of {plugin}, which no guest has, so it cannot hold there"
    if installed and plugin not in plugins(config):
        return f"the option is of {plugin}, which is none of the table's plugins for a guest"
    return ""


def _of_others(config: pytest.Config) -> list[str]:
    """The words of the options that are not pytest's own, as they were typed."""
    known = ON_HOST | SWITCHES.keys() | VALUES.keys() | ELSEWHERE | REFUSED.keys()
    asked = given(config).keys() - known
    return [
        word
        for one in typed_options.typed(config)
        if one.name in asked and not coverage.on_host(config, one.name)
        for word in coverage.in_guest(config, one).words
    ]


def arguments(config: pytest.Config) -> list[str]:
    """The options that a guest's pytest is given."""
    words = [word for name in plugins(config) for word in ("-p", name)]
    if any(map(config.pluginmanager.hasplugin, ("xdist", "xdist.plugin"))):
        words += ["-p", XDIST_NAMES]
    words += [*_of_others(config), *coverage.arguments(config)]
    for name, value in given(config).items():
        if name in SWITCHES:
            words += [SWITCHES[name]] if value else []
        elif name in VALUES:
            flag = VALUES[name]
            for one in value if isinstance(value, list) else [value]:
                # -k and -m take an expression that may begin with a dash only as a word of its own.
                words += [f"{flag}={one}"] if flag.startswith("--") else [flag, str(one)]
    return words


def plugins(config: pytest.Config) -> list[str]:
    """What `-p` and PYTEST_PLUGINS name of the plugins that a guest has: those of the tree that is
    pushed and of this Python's environment. A plugin that brings guests stays with the host."""
    names = [*config.option.plugins, *os.environ.get("PYTEST_PLUGINS", "").split(",")]
    allowed = config.stash[PROJECT].plugins
    names += _by_entry_point(config) if allowed is None else allowed
    words = dict.fromkeys(name.strip() for name in names if name.strip())
    return [
        word
        for word in words
        if word.removeprefix("no:") not in HOST_PLUGINS
        and (word.startswith("no:") or _guest_has(config, word))
    ]


def environment(config: pytest.Config) -> dict[str, str]:
    """The variables that a guest's processes have because this one has them, or for its options."""
    passed = {name: os.environ[name] for name in PASSED if os.environ.get(name)}
    return {**passed, **coverage.environment(config)}


def _by_entry_point(config: pytest.Config) -> list[str]:
    """The plugins that the host has loaded because they are installed, by their names."""
    manager = config.pluginmanager
    found = [
        manager.get_name(plugin)
        for plugin, _ in manager.list_plugin_distinfo()
        # The lab's own is named to a guest by its module.
        if getattr(plugin, "__name__", "").partition(".")[0] != PLUGIN.partition(".")[0]
    ]
    return [name for name in found if name is not None]


def _guest_has(config: pytest.Config, name: str) -> bool:
    plugin = config.pluginmanager.get_plugin(name)
    file = getattr(plugin, "__file__", None)
    if file is None or hasattr(plugin, "pytest_lab_guests"):
        return False
    path = Path(file).resolve()
    environment = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    if any(path.is_relative_to(Path(directory).resolve()) for directory in environment):
        return True
    root = config.rootpath.resolve()
    if not path.is_relative_to(root):
        return False
    return projects.travels(config.stash[PROJECT], path.relative_to(root).as_posix())


def _spelled(config: pytest.Config, name: str, value: object) -> str:
    """The option as a person would write it."""
    groups = [config._parser._anonymous, *config._parser._groups]
    options = [option for group in groups for option in group.options if option.dest == name]
    flags = [flag for option in options for flag in option.names()]
    flags = [flag for flag in flags[::-1] if flag.startswith("--")] or [*flags, name]
    typed = {str(word).partition("=")[0] for word in config.invocation_params.args}
    flag = next((flag for flag in flags if flag in typed), flags[0])
    return flag if isinstance(value, bool | list) else f"{flag}={value}"
