# SPDX-License-Identifier: MIT
"""The files of ioxide's C core: each on its floor, and those below it that it uses.

A file here is a C file with its header. It uses another one when it includes a header of that, or
has a symbol that the other one defines: the compiler and nm(1) say so, at -O0, where nothing is
inlined.
"""

from __future__ import annotations

import graphlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

RING = Path(__file__).parents[2] / "ioxide/_ring"
LINES = 180
"""How long a header may be."""
MOST_LINES = 600
"""How long a C file may be."""

Graph = Mapping[str, set[str]]


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def sources(ring: Path) -> list[Path]:
    """Every C file of the core but what cffi writes."""
    return [path for path in sorted(ring.rglob("*.c")) if path.name != "_native.c"]


def compiled(ring: Path, files: Iterable[Path], objects: Path, *, python: bool = True) -> None:
    """Compile them, each into an object of its name."""
    include = [f"-I{ring}", f"-I{ring / 'plain'}"]
    if python:
        include.append(f"-I{sysconfig.get_path('include')}")
    else:
        include = [f"-I{ring / 'plain'}"]

    def compile_one(path: Path) -> None:
        out = str(objects / f"{path.stem}.o")
        run(["cc", "-std=gnu11", "-O0", "-w", *include, "-c", str(path), "-o", out])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, files))


def includes(ring: Path) -> Graph:
    """Which file includes a header of which other one."""
    graph: dict[str, set[str]] = {}
    for path in (*sources(ring), *ring.rglob("*.h")):
        found = re.findall(r'^\s*#\s*include\s+"(?:\S*/)?(\w+)\.h"', path.read_text(), re.MULTILINE)
        graph.setdefault(path.stem, set()).update(set(found) - {path.stem})
    return graph


def calls(objects: Path) -> Graph:
    """Which file has a symbol that which other one defines."""
    defined: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for path in sorted(objects.glob("*.o")):
        wanted[path.stem] = set()
        for line in run(["nm", "--format=posix", str(path)]).splitlines():
            name, kind = line.split()[:2]
            if kind == "U":
                wanted[path.stem].add(name)
            elif kind.isupper():
                defined[name] = path.stem
    return {
        file: {defined[name] for name in names if name in defined} - {file}
        for file, names in wanted.items()
    }


def circle(*graphs: Graph) -> list[str]:
    """The files of a circle in all these graphs together; [] when there is none."""
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for graph in graphs:
        for file, used in graph.items():
            sorter.add(file, *used)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("objects")
    compiled(RING, sources(RING), directory)
    return directory


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the core's C files."""
    shutil.copytree(
        RING, tmp_path / "ring", ignore=shutil.ignore_patterns("*.so", "*.py*", "_native.c")
    )
    return tmp_path / "ring"


def append(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)


def test_no_files_use_each_other_in_a_circle(objects: Path) -> None:
    """Neither by what they include, nor by what they call, nor by both together."""
    uses = calls(objects)

    assert len(sources(RING)) == len(uses)
    assert "receive" in uses["life"]  # that calls were found at all
    assert [] == circle(includes(RING), uses)


def test_call_upward_is_found(objects: Path, copy: Path, tmp_path: Path) -> None:
    """Also where no header declares what is called."""
    for path in objects.glob("*.o"):
        shutil.copy(path, tmp_path)
    append(copy / "send.c", "void iox_conn_progress(Connection *);\n")
    append(copy / "send.c", "void iox_up(Connection *conn) { iox_conn_progress(conn); }\n")
    compiled(copy, [copy / "send.c"], tmp_path)

    assert [] == circle(includes(copy))
    assert {"send", "life"} <= set(circle(calls(tmp_path)))


def test_include_upward_is_found(copy: Path) -> None:
    append(copy / "waiter.h", '#include "dispatch.h"\n')

    assert {"waiter", "dispatch"} <= set(circle(includes(copy)))


def test_plain_files_know_no_python(tmp_path: Path) -> None:
    """They compile where neither Python's headers nor the other files of the core can be found."""
    files = sources(RING / "plain")
    compiled(RING, files, tmp_path, python=False)

    assert {"group", "memory", "pages", "ring"} <= {path.stem for path in tmp_path.glob("*.o")}


def test_plain_files_call_only_each_other(objects: Path) -> None:
    uses = calls(objects)
    plain = {path.stem for path in sources(RING / "plain")}

    assert set() == set().union(*(uses[file] for file in plain)) - plain


@pytest.mark.parametrize("text", ["#include <Python.h>\n", '#include "driver_state.h"\n'])
def test_plain_file_that_includes_python_is_found(copy: Path, tmp_path: Path, text: str) -> None:
    append(copy / "plain/pages.h", text)

    with pytest.raises(AssertionError, match=r"No such file or directory"):
        compiled(copy, [copy / "plain/pages.c"], tmp_path, python=False)


def test_each_file_has_a_short_header_of_its_own() -> None:
    headers = {path.stem: len(path.read_text().splitlines()) for path in RING.rglob("*.h")}

    assert set() == {path.stem for path in sources(RING)} - headers.keys()
    assert {} == {name: lines for name, lines in headers.items() if lines > LINES}


def test_no_file_of_the_core_is_long() -> None:
    files = {path.name: len(path.read_text().splitlines()) for path in sources(RING)}

    assert {} == {name: lines for name, lines in files.items() if lines > MOST_LINES}


SAYS = """
#include "states.h"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
	if (argc == 3)
		iox_life_check(atoi(argv[1]), atoi(argv[2]));
	if (argc == 4)
		iox_receive_check(atoi(argv[1]), atoi(argv[2]));
	for (int from = 0; from < IOX_LIFE_STATES; from++)
		for (int to = 0; to < IOX_LIFE_STATES; to++)
			if (iox_life_may(from, to))
				printf("life %s -> %s\\n", iox_life_names[from], iox_life_names[to]);
	for (int from = 0; from < IOX_RECEIVE_STATES; from++)
		for (int to = 0; to < IOX_RECEIVE_STATES; to++)
			if (iox_receive_may(from, to))
				printf("receive %s -> %s\\n", iox_receive_names[from], iox_receive_names[to]);
	return 0;
}
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that says what the table of transitions has, and asks it as the test build does."""
    directory = tmp_path_factory.mktemp("states")
    (directory / "says.c").write_text(SAYS)
    plain, program = RING / "plain", str(directory / "says")
    files = [str(directory / "says.c"), str(plain / "states.c")]
    run(["cc", "-std=gnu11", "-DIOX_SANITIZE", f"-I{plain}", *files, "-o", program])
    return program


def test_architecture_has_the_transitions_of_the_table(states: str) -> None:
    text = (RING.parents[1] / "docs/architecture.md").read_text()
    table = text.partition("### The states of a connection")[2].partition("| From | to |")[2]
    rows = re.findall(
        r"^\| (\w+ \w+) \| ([\w, -]+) \|$", table.partition("\n### ")[0], re.MULTILINE
    )

    assert set(run([states]).splitlines()) == {
        f"{state} -> {after}"
        for state, follow in rows
        for after in follow.split(", ")
        if after != "-"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["3", "0"], "a connection's life went from gone to open"),
        (["0", "3"], "a connection's life went from open to gone"),
        (["3", "1", "receive"], "a receive went from starved to armed"),
    ],
)
def test_transition_that_is_not_in_the_table_ends_the_test_build(
    states: str, arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [states, *arguments], capture_output=True, text=True, timeout=20, check=False
    )

    assert -signal.SIGABRT == done.returncode
    assert f"ioxide: {said}, which is not in the table of states.c\n" == done.stderr


def test_states_are_set_in_one_place() -> None:
    """By iox_life_set() and iox_receive_set(), which ask the table, and nowhere else."""
    found = [
        path.name
        for path in (*sources(RING), *RING.rglob("*.h"))
        for _ in re.findall(r"(?:life|receive)\.state\s*=[^=]", path.read_text())
    ]

    assert ["connection_state.h"] * 2 == found


def mode_questions(ring: Path) -> set[str]:
    """The files that read what the modes keep, or ask homes.h about a worker without modes.h."""
    state, homes = r"modes\.(?:on_resume|wake_each|workers|to_notify)", r"iox_homes?_\w+\("
    workers = r"if \(\w+->worker\b|->worker (?:\?|&&)"
    asks = re.compile(f"{state}|{homes}|{workers}")
    return {
        path.name for path in (*sources(ring), *ring.rglob("*.h")) if asks.search(path.read_text())
    }


SEAM = {"modes.h", "modes.c", "homes.h", "homes.c", "worker.c"}
"""The seam for the modes that are not inline, and what is behind it."""


def test_modes_are_behind_one_seam() -> None:
    assert SEAM == mode_questions(RING)


@pytest.mark.parametrize(
    "question",
    ["driver->modes.workers", "iox_home_here(driver)", "if (waiter->worker)"],
)
def test_question_about_a_mode_beside_the_seam_is_found(copy: Path, question: str) -> None:
    append(copy / "receive.c", f"/* {question} */\n")

    assert {"receive.c"} == mode_questions(copy) - SEAM
