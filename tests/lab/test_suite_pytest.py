# SPDX-License-Identifier: MIT
"""pytest as people use it, in guests: fixtures, plugins, options, and what they leave behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from lab.errors import LabError
from lab.remote.process import TREE
from lab.suite import home
from lab.suite.coverage import move_paths
from lab.suite.left import left
from lab.vm import Guest
from lab.vm.pull import Pulled
from tests.lab import foreign_support
from tests.lab.foreign_support import Foreign, line_of, measured
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab


@pytest.fixture
def foreign(little: Little) -> Foreign:
    """Somebody else's repository."""
    return Foreign.of(little)


def test_everything_in_use_works_in_a_guest(foreign: Foreign) -> None:
    """Each test of a repository that uses pytest and its plugins in every usual way has its
    verdict, and hypothesis's database comes home."""
    ran = foreign.lab()

    foreign_support.check(ran)
    assert foreign_support.as_expected(foreign.root)
    told = ran.why("test_told")
    assert "'flavour': 'plain', 'spicy': False, 'topping': [], 'size': None" in told
    assert "'quantity': 0, 'level': 2, 'maybe': 'no'} ('none', 'dark') square" in told
    assert any(path.is_file() for path in (foreign.root / ".hypothesis/examples").rglob("*"))


def test_options_of_a_conftest_and_of_plugins_reach_the_guest(foreign: Foreign) -> None:
    """As they were typed: on the command line, in PYTEST_ADDOPTS, in addopts, in an @file."""
    foreign.write("words.txt", "--flavour=sour\n--maybe\n")
    _, told, rest = foreign_support.TESTS.partition("def test_told")
    foreign.tests(told + rest.partition("@pytest")[0])
    words = "--topping=a b", "--topping=-c", "--size", "1", "2", "-Q3", "--night=-black"

    ran = foreign.lab("@words.txt", *words, "tests", PYTEST_ADDOPTS="--spicy")

    why = ran.why("test_told")
    assert "'flavour': 'sour', 'spicy': True, 'topping': ['a b', '-c'], 'size': [1, 2]" in why
    assert "'quantity': 3, 'level': 2, 'maybe': 'yes'} ('-black', 'dark') square" in why


@pytest.mark.parametrize(
    ("table", "words", "sentence"),
    [
        (
            "",
            ("--maxschedchunk=1",),
            "--maxschedchunk=1: the option is of xdist, which no guest has",
        ),
        (
            "plugins = []",
            ("--hypothesis-seed=1",),
            "is of hypothesispytest, which is none of the table's plugins for a guest",
        ),
    ],
    ids=("xdist", "not-of-the-table"),
)
def test_option_of_a_plugin_that_no_guest_has_is_2(
    foreign: Foreign, table: str, words: tuple[str, ...], sentence: str
) -> None:
    """A guest that is not told would run something else than was asked for."""
    settings = foreign_support.SETTINGS.replace("[tool.lab]", f"[tool.lab]\n{table}")
    foreign.write("pyproject.toml", settings)
    foreign.tests("def test_a(): pass\n")

    ran = foreign.lab(*words)

    assert ran.code == 2, ran.output
    assert sentence in ran.output


def test_option_goes_where_its_plugin_goes(little: Little) -> None:
    """That of a conftest.py that travels reaches the guest; that of a plugin that does not is
    refused."""
    option = "def pytest_addoption(parser): parser.addoption('--NAME')\n"
    little.write("tests/conftest.py", option.replace("NAME", "flavour"))
    little.write("tests/lab/strange.py", option.replace("NAME", "strange"))
    little.tests("def test_a(request): assert request.config.getoption('flavour') == '-x'\n")

    ran = little.lab("tests", "--flavour=-x")
    assert {"test_a": "passed"} == ran.verdicts, ran.output

    ran = little.lab("-p", "tests.lab.strange", "--strange=1")
    assert ran.code == 2, ran.output
    assert "--strange=1: the option is of tests.lab.strange, which no guest has" in ran.output


def test_plugin_that_fails_the_session_here_is_not_green(little: Little) -> None:
    """As pytest-cov does below its mark: what is held against the session on the host counts."""
    little.tests("def test_a(): pass\n")
    little.write(
        "tests/conftest.py",
        "import pytest\n"
        "from pathlib import Path\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_runtestloop(session):\n"
        "    result = yield\n"
        "    session.testsfailed += not Path('.lab').exists()\n"
        "    return result\n",
    )

    ran = little.lab("tests")

    assert ran.code == 1, ran.output
    assert "a plugin of pytest on the host failed the session" in ran.last_line


class _Pulled:
    """A guest that notes what is pulled from it."""

    def __init__(self, results: Path) -> None:
        self.console = results / "console.log"
        self.asked: list[tuple[str, Path]] = []

    def pull(self, path: str, destination: Path) -> Pulled:
        assert destination.parent.is_dir()
        self.asked.append((path, destination))
        if path.endswith("coverage"):
            raise LabError("the guest has no such thing")
        return Pulled(left_out=["a: a socket", "b: a socket"])


def test_what_is_left_in_a_guest_is_found_and_brought(tmp_path: Path) -> None:
    """Only what is known, whatever a guest says; and what does not come is said."""
    tree, root, guest = tmp_path / "tree", tmp_path / "root", _Pulled(tmp_path)
    assert [] == left(tree)
    for name in (".lab/coverage", ".hypothesis/examples/a", "other"):
        (tree / name).mkdir(parents=True)

    assert [".lab/coverage", ".hypothesis/examples"] == left(tree)
    names = ["../../etc/passwd", *left(tree)]
    assert [
        ".lab/coverage did not come home from the guest: the guest has no such thing",
        ".hypothesis/examples did not come home whole: a: a socket",
    ] == home.bring(cast(Guest, guest), names, root)
    assert [
        (f"{TREE}/.lab/coverage", tmp_path / "coverage.data"),
        (f"{TREE}/.hypothesis/examples", root / ".hypothesis/examples"),
    ] == guest.asked


def test_what_failed_for_hypothesis_is_tried_again(foreign: Foreign) -> None:
    """The database goes to the next guest, so what it found is found with the first example."""
    foreign.write(
        "tests/test_it.py",
        "from hypothesis import Phase, given, settings, strategies as st\n"
        "@given(st.integers(min_value=0, max_value=2**60))\n"
        "@settings(phases=PHASES, max_examples=200, deadline=None)\n"
        "def test_rare(n): assert n < 1000\n".replace("PHASES", "list(Phase)"),
    )
    assert foreign.lab("tests").verdicts == {"test_rare": "failed"}
    text = (foreign.root / "tests/test_it.py").read_text()
    foreign.write("tests/test_it.py", text.replace("list(Phase)", "[Phase.reuse]"))

    assert foreign.lab("tests").verdicts == {"test_rare": "failed"}


def test_coverage_of_a_guest_is_part_of_the_hosts(foreign: Foreign) -> None:
    """Lines that only a guest ran are in .coverage and in the report, by the paths of this machine.
    A total below --cov-fail-under is not green, however good the tests."""
    cov = "--cov=src/foreign", "--cov-report=term-missing", "--cov-fail-under=99"

    ran = foreign.lab(*cov, "-k", "where")

    package = foreign.root / "src/foreign/__init__.py"
    found = measured(foreign.root / ".coverage")
    assert [str(package)] == list(found), ran.output
    assert line_of('        return "guest"') in found[str(package)]
    assert line_of('    return "host"') not in found[str(package)]
    assert "src/foreign/__init__.py" in ran.output
    assert [] == list(foreign.root.glob(".coverage.*"))
    assert {"test_where": "passed"} == ran.verdicts
    assert ran.code == 1, ran.output
    assert "is less than fail-under=99" in ran.output
    assert "a plugin of pytest on the host failed the session" in ran.last_line


def test_coverage_of_all_has_nothing_of_the_lab(foreign: Foreign) -> None:
    """Without a source everything is measured that is not installed, and the lab is not."""
    ran = foreign.lab("--cov", "--cov-report=", "-k", "where")

    assert ran.code == 0, ran.output
    found = measured(foreign.root / ".coverage")
    wanted = {str(foreign.root / name) for name in ("src/foreign/__init__.py", "tests/test_it.py")}
    assert wanted <= found.keys()
    assert not any("/.lab/" in name or "lab-tree" in name for name in found)


def test_coverage_of_a_process_that_died_is_named(foreign: Foreign) -> None:
    """The report has a line for what is missing in it."""
    foreign.write("tests/test_it.py", "import os\ndef test_a(): os._exit(1)\ndef test_b(): pass\n")

    ran = foreign.lab("--cov=foreign", "tests")

    assert {"test_a": "lost", "test_b": "passed"} == ran.verdicts
    assert "the coverage of 1 process in guests that died is not in the report" in ran.output


def test_configuration_of_coverage_that_stays_here_is_2(foreign: Foreign) -> None:
    """A guest would measure something else."""
    foreign.write("tests/lab/rc", "[run]\nbranch = true\n")

    ran = foreign.lab("--cov=foreign", "--cov-config=tests/lab/rc")

    assert ran.code == 2, ran.output
    assert "--cov-config=tests/lab/rc: this file does not travel to the guest" in ran.output


def test_data_of_coverage_that_is_none_is_not_used(foreign: Foreign) -> None:
    """A guest may leave anything under that name."""
    foreign.write("tests/test_it.py", "def test_a(): pass\n")
    foreign.write(
        "conftest.py",
        "from pathlib import Path\n"
        "def pytest_unconfigure():\n"
        "    if Path('.lab').exists(): Path('.lab/coverage').write_bytes(b'nonsense')\n",
    )

    settings = foreign_support.SETTINGS.replace(', "--level=2"', "")
    foreign.write("pyproject.toml", settings)
    ran = foreign.lab("--cov=foreign", "tests")

    assert ran.code == 3, ran.output
    assert "what coverage measured in a guest cannot be used: file is not a database" in ran.output


def test_warnings_of_the_environment_hold_in_the_guest(little: Little) -> None:
    """PYTHONWARNINGS, like -W."""
    little.tests("import warnings\ndef test_one(): warnings.warn('old', DeprecationWarning)\n")
    little.write("pyproject.toml", '[tool.lab]\nkernels = ["6.12"]\ninclude = ["tests"]\n')

    assert little.lab().code == 0
    ran = little.lab(PYTHONWARNINGS="error::DeprecationWarning")

    assert ran.code == 1, ran.output
    assert "DeprecationWarning: old" in ran.why("test_one")


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_pytests(little: Little, option: str) -> None:
    """It is not a run, and says what pytest says."""
    ran = little.run("lab", "test", option)

    assert ran.code == 0, ran.output
    assert ran.output.strip() == f"pytest {pytest.__version__}"


def test_paths_in_a_data_file_are_moved(tmp_path: Path) -> None:
    """Those of the tree, and no others; what is the lab's goes, with its lines."""
    with closing(sqlite3.connect(tmp_path / "data")) as database, database:
        database.execute("CREATE TABLE file (id INTEGER PRIMARY KEY, path TEXT UNIQUE)")
        database.execute("CREATE TABLE line_bits (file_id INTEGER, numbits BLOB)")
        paths = ("/t/a.py", "/t/.lab/packages/lab/b.py", "/usr/c.py", "/tt/d.py")
        database.executemany("INSERT INTO file VALUES (?, ?)", enumerate(paths, 1))
        database.executemany("INSERT INTO line_bits VALUES (?, x'')", [(n,) for n in (1, 2, 3, 4)])

    move_paths(tmp_path / "data", "/t", Path("/home/me"))

    with closing(sqlite3.connect(tmp_path / "data")) as database:
        files = database.execute("SELECT id, path FROM file ORDER BY id").fetchall()
        lines = database.execute("SELECT file_id FROM line_bits ORDER BY file_id").fetchall()
    assert [(1, "/home/me/a.py"), (3, "/usr/c.py"), (4, "/tt/d.py")] == files
    assert [(1,), (3,), (4,)] == lines
