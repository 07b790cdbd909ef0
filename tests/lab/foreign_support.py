# SPDX-License-Identifier: MIT
"""Somebody else's repository, whose tests use pytest and its plugins in every usual way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverage import CoverageData

from tests.lab.suite_support import Little, Ran, leg_of

SETTINGS = """\
[tool.pytest.ini_options]
addopts = ["--doctest-modules", "--strict-markers", "--level=2"]
testpaths = ["src", "tests"]
pythonpath = [".", "src", "tools"]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
timeout = 60
shade = "dark"
shape = "square"
markers = ["colour(name): ours"]

[tool.coverage.run]
branch = true

[tool.lab]
kernels = ["6.12"]
include = ["src", "tests", "tools", "conftest.py"]
exclude = ["tests/lab"]
"""
PACKAGE = '''\
"""Adds.

>>> add(1, 2)
3
"""
import pathlib


def add(a, b):
    """The sum.

    >>> add(2, 2)
    4
    """
    return a + b


def where():
    if pathlib.Path(".lab").exists():
        return "guest"
    return "host"
'''
CONFTEST = """\
pytest_plugins = ["ownplugin"]
def pytest_addoption(parser):
    group = parser.getgroup("foreign")
    group.addoption("--flavour", default="plain")
    group.addoption("--spicy", action="store_true")
    group.addoption("--topping", action="append", default=[])
    group.addoption("--size", nargs=2, type=int)
    group.addoption("-Q", dest="quantity", type=int, default=0)
    group.addoption("--level", type=int, default=1)
    group.addoption("--maybe", nargs="?", const="yes", default="no")
    parser.addini("shape", "ours", default="round")
"""
PLUGIN = """\
import pytest
def pytest_addoption(parser):
    parser.addoption("--night", default="none")
    parser.addini("shade", "ours", default="light")
@pytest.fixture
def night(request):
    return request.config.getoption("--night"), request.config.getini("shade")
"""
TESTS = """\
import asyncio, logging, os, sys, unittest
import pytest
from hypothesis import given, settings, strategies as st
import foreign

order = []

@pytest.fixture(scope="session")
def of_session():
    order.append("up")
    yield "s"
@pytest.fixture(scope="package")
def of_package(of_session): yield of_session + "p"
@pytest.fixture(scope="module")
def of_module(of_package): yield of_package + "m"
@pytest.fixture(scope="class")
def of_class(of_module): yield of_module + "c"
@pytest.fixture
def of_function(of_class): yield of_class + "f"
def test_scopes(of_function): assert of_function == "spmcf"
def test_scopes_again(of_function): assert order == ["up"]

@pytest.mark.parametrize("a", [1, "x y", "\\u00e9", "a/b::c", pytest.param(3, id="three")])
@pytest.mark.parametrize("b", [None, 1.5], ids=str)
def test_parameters(a, b): assert a
@pytest.fixture(params=["one", "two"])
def par(request): return request.param
def test_par(par): assert par in ("one", "two")
@pytest.mark.parametrize("par", ["three"], indirect=True)
def test_indirect(par): assert par == "three"

def test_tmp_path(tmp_path, tmp_path_factory, tmpdir):
    (tmp_path / "x").write_text("x")
    assert tmp_path_factory.mktemp("y").is_dir()
def test_cache(cache):
    cache.set("a/b", 1)
    assert cache.get("a/b", 0) == 1
def test_capsys(capsys):
    print("hello")
    print("err", file=sys.stderr)
    assert capsys.readouterr() == ("hello\\n", "err\\n")
def test_capfd(capfd):
    os.system("echo from a child")
    assert capfd.readouterr().out == "from a child\\n"
def test_caplog(caplog):
    with caplog.at_level(logging.INFO):
        logging.getLogger("a").info("hi")
    assert caplog.messages == ["hi"]
def test_monkeypatch(monkeypatch):
    monkeypatch.setenv("X", "1")
    monkeypatch.setattr(foreign, "add", lambda a, b: 7)
    assert foreign.add(1, 1) == 7

def test_subtests(subtests):
    for n in range(3):
        with subtests.test("part", n=n): assert n >= 0
def test_subtests_fail(subtests):
    with subtests.test("good"): pass
    with subtests.test("bad"): assert 1 == 2
class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.x = 1
    def setUp(self): self.y = 2
    def test_sub(self):
        for n in range(3):
            with self.subTest(n=n): self.assertGreaterEqual(n, 0)
    def test_sub_fail(self):
        for n in range(3):
            with self.subTest(n=n): self.assertNotEqual(n, 1)
    @unittest.expectedFailure
    def test_expected(self): self.assertEqual(1, 2)
class TestAsyncUnit(unittest.IsolatedAsyncioTestCase):
    async def test_unit_async(self): await asyncio.sleep(0)

async def test_asyncio_auto():
    await asyncio.sleep(0)
@pytest.mark.asyncio
async def test_asyncio_marked(): await asyncio.sleep(0)
@pytest.fixture
def anyio_backend(): return "asyncio"
@pytest.mark.anyio
def test_anyio(anyio_backend_name): assert anyio_backend_name == "asyncio"

@given(st.integers(), st.integers())
@settings(max_examples=5, deadline=None)
def test_hypothesis(a, b): assert foreign.add(a, b) == a + b
@given(st.integers())
@settings(max_examples=50, deadline=None)
def test_hypothesis_fails(a): assert a < 1000

@pytest.mark.timeout(30)
def test_timeout(): pass
@pytest.mark.colour("red")
def test_marked(): pass
def test_where(): assert foreign.where() == "guest"
def test_told(request, night):
    names = "flavour", "spicy", "topping", "size", "quantity", "level", "maybe"
    told = {name: request.config.getoption(name) for name in names}
    pytest.fail(f"TOLD {told} {night} {request.config.getini('shape')}")
@pytest.mark.skip(reason="not now")
def test_skip(): pass
@pytest.mark.xfail(reason="known")
def test_xfail(): assert 0
@pytest.mark.usefixtures("of_module")
class TestClass:
    def setup_method(self): self.a = 1
    def test_method(self): assert self.a == 1
"""
FAILED = frozenset(("test_subtests_fail", "test_sub_fail", "test_hypothesis_fails", "test_told"))
SKIPPED = frozenset(("test_skip",))
XFAILED = frozenset(("test_xfail", "test_expected"))


def write(root: Path) -> None:
    """Write the repository."""
    files = {
        "pyproject.toml": SETTINGS,
        "src/foreign/__init__.py": PACKAGE,
        "conftest.py": CONFTEST,
        "tools/ownplugin.py": PLUGIN,
        "tests/test_it.py": TESTS,
        "tests/lab/kept/README": "what no guest gets\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


class Foreign(Little):
    """Such a repository, with the lab in it."""

    @classmethod
    def of(cls, little: Little) -> Foreign:
        """The little repository, made such a one."""
        made = cls.__new__(cls)
        made.__dict__ = little.__dict__
        made._make()
        return made

    def _make(self) -> None:
        write(self.root)

    def environment(self, **more: str) -> dict[str, str]:
        """Plugins that are installed are loaded, as in anybody's environment."""
        found = super().environment(**more)
        del found["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        # The lab that is in the repository, not one that is installed as well.
        return found | {"PYTEST_ADDOPTS": f"-p no:kernel_lab {more.get('PYTEST_ADDOPTS', '')}"}


def measured(data: Path) -> dict[str, set[int]]:
    """The lines that ran, by file, of a data file of coverage's."""
    read = CoverageData(str(data))
    read.read()
    return {file: set(read.lines(file) or ()) for file in read.measured_files()}


def line_of(text: str) -> int:
    """The number of this line of the package."""
    return 1 + PACKAGE.splitlines().index(text)


def check(ran: Ran) -> None:
    """Every test of the repository came to what it is to come to."""
    verdicts: dict[str, Any] = {name.partition("[")[0]: v for name, v in ran.verdicts.items()}
    wanted = dict.fromkeys(verdicts, "passed")
    for names, verdict in ((FAILED, "failed"), (SKIPPED, "skipped"), (XFAILED, "xfailed")):
        wanted |= dict.fromkeys(names, verdict)
    assert wanted == verdicts, ran.output
    assert ran.results is not None
    assert 41 == len(ran.results["verdicts"])
    assert 1 == ran.code, ran.output


def as_expected(root: Path) -> bool:
    """Whether the last run at `root` came to that; says what did not."""
    files = root / "lab-results/latest"
    try:
        check(Ran(1, "", leg_of(files), files))
    except (OSError, AssertionError) as error:
        print(error)
        return False
    return True
