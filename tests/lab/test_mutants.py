# SPDX-License-Identifier: MIT
"""The runner of mutants: only a bug that its own test notices, and nothing else, is good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.mutants.table import HERE, Mutant, Stale, TableError, load

pytestmark = pytest.mark.lab

ROOT = HERE.parents[1]

_MODULE = """\
def double(number):
    return number * 2

def half(number):
    return number / 2
"""
_TESTS = """\
import time
from little import double, half

def test_control():
    assert 0 == half(0)

def test_double():
    assert 6 == double(3)

def test_nothing():
    assert callable(double)

def test_half():
    assert 3 == half(6)
"""


class Bench:
    """A little repository with two functions and their tests, to put bugs into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.scratch = directory / "scratch"
        self.root = directory / "tree"
        self.scratch.mkdir()
        self.root.mkdir()
        (self.root / "little.py").write_text(_MODULE)
        (self.root / "test_little.py").write_text(_TESTS)
        (self.root / "pyproject.toml").write_text(
            '[tool.pytest.ini_options]\nfilterwarnings = ["error"]\n'
            # It warns where nobody has chosen a scope for its loops.
            'addopts = ["-p", "no:asyncio"]\n'
        )
        subprocess.run(["git", "init", "-q"], cwd=self.root, check=True)

    def command(self, table: str, *arguments: str) -> list[str]:
        path = self.directory / "table.toml"
        path.write_text('controls = ["test_little.py::test_control"]\n' + textwrap.dedent(table))
        return [
            *(sys.executable, "-m", "tests.mutants"),
            *("--root", str(self.root), "--table", str(path), *arguments),
        ]

    def run(self, table: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(table, *arguments),
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert [] == list(self.scratch.iterdir()), "a copy of the tree was left behind"
        return done


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def mutant(
    *,
    search: str = "number * 2",
    replace: str = "number * 3",
    red: str = '"test_little.py::test_double" = "assert 6 == 9"',
    more: str = "",
) -> str:
    """One entry of a table."""
    return f"""
[[mutant]]
id = "little"
breaks = "#1"
what = "Twice is thrice."
file = "little.py"
search = '''{search}'''
replace = '''{replace}'''
{more}
[mutant.red]
{red}
"""


def test_red_by_its_own_assertion(bench: Bench) -> None:
    """A bug that its test notices: 0, and issue, mutant, test and assertion are printed."""
    done = bench.run(mutant())
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "1 of 1 mutants red" in done.stdout
    assert re.search(r"#1 +little: Twice is thrice\.", done.stdout)
    assert "test_little.py::test_double: assert 6 == 9" in done.stdout
    # The tree itself was never touched.
    assert _MODULE == (bench.root / "little.py").read_text()


def test_survivor(bench: Bench) -> None:
    """A test that stays green under its bug: 1, and it is named."""
    done = bench.run(mutant(red='"test_little.py::test_nothing" = "assert"'))
    assert 1 == done.returncode
    assert "survived: little: test_little.py::test_nothing stays green" in done.stdout


def test_failure_for_another_reason(bench: Bench) -> None:
    """A test that fails, but not by the assertion meant for the bug: 1."""
    done = bench.run(mutant(replace="number.nothing"))
    assert 1 == done.returncode
    assert "other reason: little" in done.stdout
    assert "AttributeError" in done.stdout


def test_broken_control(bench: Bench) -> None:
    """A bug that breaks everything shows nothing: 1."""
    broken = 'raise SystemError("all broken")'
    done = bench.run(mutant(search="def double(number):", replace=f"{broken}\ndef double(number):"))
    assert 1 == done.returncode
    assert "broke a control: little: test_little.py::test_control" in done.stdout


@pytest.mark.parametrize(("search", "count"), [("number * 4", 0), ("return number", 2)])
def test_stale_mutant(bench: Bench, search: str, count: int) -> None:
    """Text that is not in the file exactly once is an error: the code has moved on."""
    done = bench.run(mutant(search=search))
    assert 1 == done.returncode
    assert "stale: little" in done.stdout
    assert f"{count} times instead of once" in done.stdout


def test_test_that_does_not_exist(bench: Bench) -> None:
    """A test that is named and is not there did not turn red: 1."""
    done = bench.run(mutant(red='"test_little.py::test_gone" = "assert"'))
    assert 1 == done.returncode
    assert "test_little.py::test_gone" in done.stdout.split("not so")[0]


def test_red_without_the_mutant(bench: Bench) -> None:
    """A test that fails in the tree as it is proves nothing about the bug: 1."""
    tests = bench.root / "test_little.py"
    tests.write_text(tests.read_text().replace("6 == double(3)", "6 == 9 == double(3)"))
    done = bench.run(mutant())
    assert 1 == done.returncode
    assert "red without it: little" in done.stdout


def test_hang_counts_only_when_meant(bench: Bench) -> None:
    """A test that hangs under its bug is killed; that is red only where the table says so."""
    hang = "__import__('signal').pthread_sigmask(0, {14}) or __import__('time').sleep(600)"
    entry = mutant(replace=hang)
    for more, status, words in (("", 1, "did not end in time"), ("hangs = true\n", 0, "red")):
        text = entry.replace("[mutant.red]", f"{more}[mutant.red]")
        done = bench.run(text, "--limit", "10")  # time for the control on a loaded machine
        assert status == done.returncode, done.stdout
        assert words in done.stdout


def test_crash_is_another_reason(bench: Bench) -> None:
    """A bug that ends the process in the test's middle is not the assertion meant for it: 1."""
    done = bench.run(mutant(replace="__import__('os')._exit(0)"))
    assert 1 == done.returncode
    assert "ended the process with status 0 in the middle" in done.stdout


def test_skipped_test_is_no_proof(bench: Bench) -> None:
    """A test that is skipped under its bug did not turn red: 1."""
    done = bench.run(mutant(replace="__import__('pytest').skip('no')"))
    assert 1 == done.returncode
    assert "other reason: little" in done.stdout


def test_mutant_in_c(bench: Bench) -> None:
    """A bug in C is compiled and linked as setup.py did it; one that does not compile is named."""
    (bench.root / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        "setup(name='little', py_modules=[], ext_modules=[Extension('answer', ['answer.c'])])\n"
    )
    (bench.root / "answer.c").write_text(
        "#include <Python.h>\n"
        'static struct PyModuleDef def = { PyModuleDef_HEAD_INIT, .m_name = "answer" };\n'
        "PyMODINIT_FUNC PyInit_answer(void)\n"
        "{\n"
        "\tPyObject *module = PyModule_Create(&def);\n"
        '\tPyModule_AddIntConstant(module, "ANSWER", 42);\n'
        "\treturn module;\n"
        "}\n"
    )
    tests = bench.root / "test_little.py"
    tests.write_text(
        tests.read_text()
        + "\ndef test_answer():\n    import answer\n    assert 42 == answer.ANSWER\n"
    )
    red = '"test_little.py::test_answer" = "assert 42 == 41"'
    good = mutant(search="42", replace="41", red=red).replace("little.py'", "answer.c'")
    good = good.replace('file = "little.py"', 'file = "answer.c"')
    bad = good.replace('"little"', '"syntax"').replace("'''41'''", "'''4 2'''")
    done = bench.run(good + bad)
    assert 1 == done.returncode
    assert "test_little.py::test_answer: AssertionError: assert 42 == 41" in done.stdout
    assert "does not build: syntax" in done.stdout
    assert "1 of 2 mutants red" in done.stdout


@pytest.mark.parametrize(
    ("table", "arguments", "words"),
    [
        (mutant(), ("-k", "nothing-like-it"), "nothing matches nothing-like-it"),
        (mutant(), ("-j", "0"), "-j must be at least 1, not 0"),
        (mutant() + mutant(), (), "the id 'little' is used twice"),
        (mutant(replace="number * 2"), (), "nothing would change"),
        (mutant(red=""), (), "red must name at least one test"),
        (mutant(red='"t.py::a" = "AssertionError"'), (), "give a part of what t.py::a says"),
        (mutant(more='colour = "red"'), (), "unknown keys ['colour']"),
        (mutant(more='since = "new"'), (), "since: 'new' does not begin with a kernel series"),
        (mutant(), ("--share", "2/1"), "'2/1' is not I/N with 1 <= I <= N"),
        (mutant(), ("--share", "2/2"), "nothing is in that share"),
        ("[[mutant]", (), "table.toml"),
    ],
)
def test_usage(bench: Bench, table: str, arguments: tuple[str, ...], words: str) -> None:
    """What cannot be run is refused with 2 and a sentence, before anything is copied."""
    done = bench.run(table, *arguments)
    assert 2 == done.returncode
    assert words in done.stderr


def test_list_and_selection(bench: Bench) -> None:
    """--list prints each mutant; -k takes those whose id, issue or file has the text."""
    other = mutant().replace('"little"', '"another"').replace('"#1"', '"#2"')
    assert "another" in bench.run(mutant() + other, "--list").stdout
    chosen = bench.run(mutant() + other, "--list", "-k", "#2").stdout
    assert "another" in chosen
    assert "little " not in chosen.replace("little.py", "")


def test_shares_are_the_whole() -> None:
    """The shares of a table have each of its mutants once, and all of its controls."""
    table = load()
    shares = [table.share(number, 4) for number in (1, 2, 3, 4)]
    assert sorted(m.id for m in table.mutants) == sorted(m.id for s in shares for m in s.mutants)
    assert {table.controls} == {share.controls for share in shares}


def test_bug_of_later_kernels_is_absent(bench: Bench) -> None:
    """A bug that only shows on later kernels is neither red nor alive, and alone proves nothing."""
    later = bench.run(mutant(more='since = "99.0"'))
    assert "absent here" in later.stdout
    assert "0 of 1 mutants red by their own assertion" in later.stdout
    assert 1 == later.returncode, later.stdout
    earlier = bench.run(mutant(more='since = "2.6"'))
    assert "1 of 1 mutants red by their own assertion" in earlier.stdout
    assert 0 == earlier.returncode, earlier.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(bench: Bench, number: signal.Signals) -> None:
    """Ctrl-C ends it with 130, and no process and no copy of the tree stays behind."""
    process = subprocess.Popen(
        bench.command(mutant(replace="__import__('time').sleep(600)")),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(bench.scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(bench.scratch.glob("*/tree-1.plugins/record")):
        assert time.monotonic() < deadline, "no test was begun"
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)  # not at the limit of what is tried
    assert 130 == process.returncode, output
    assert [] == list(bench.scratch.iterdir())


def test_every_mutant_of_ours_still_fits() -> None:
    """Each text that the tables replace is in the code once, and leaves Python that compiles."""
    stale: list[str] = []
    for entry in load().mutants:
        try:
            text = entry.apply((ROOT / entry.file).read_text())
            if entry.file.endswith(".py"):
                compile(text, entry.file, "exec")
        except (OSError, Stale, SyntaxError) as error:
            stale.append(f"{entry.id}: {error}")
    assert [] == stale


def test_every_test_that_a_mutant_names_is_there() -> None:
    """By its whole id: a parameter that a test is given later leaves the mutant without a test."""
    named = {test for entry in load().mutants for test in (*entry.red, *entry.controls)}
    files = sorted({test.split("::")[0] for test in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, *files],
        cwd=ROOT,
        env={**os.environ, "SLOW": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ran.returncode, ran.stdout[-2000:] + ran.stderr
    # Ids with an escape are printed as they are typed.
    assert set() == named - {line.strip() for line in ran.stdout.splitlines()}


def test_every_issue_has_a_mutant() -> None:
    """Each of #92 to #104 has a bug that is put back."""
    broken = {entry.breaks for entry in load().mutants}
    assert set() == {f"#{number}" for number in range(92, 105)} - broken


def test_missing_table() -> None:
    """A table that cannot be read is an error that names it."""
    with pytest.raises(TableError, match="nowhere"):
        load([Path("nowhere.toml")])


def test_apply_changes_one_place() -> None:
    """Several edits are made one after the other, each in one place."""
    entry = Mutant(
        id="x",
        breaks="#1",
        what="x",
        file="x",
        edits=(("a", "b"), ("c", "d")),
        red={"t": "assert"},
    )
    assert "b-d" == entry.apply("a-c")
    with pytest.raises(Stale, match="2 times"):
        entry.apply("a-a-c")
