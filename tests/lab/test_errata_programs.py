# SPDX-License-Identifier: MIT
"""The program of an erratum: what its measurement depends on, and what would not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errata.program import programs
from lab.errors import LabError
from lab.project import Errata
from tests.lab.errata_support import (
    REPRODUCERS,
)

pytestmark = pytest.mark.lab

ERRATA = Errata(
    "errata.toml",
    REPRODUCERS,
    followed=("tests/kernel_gated",),
    sources=("ioxide/_probe/rawring.py", "ioxide/_ring/probe.c", "ioxide/_ring/probe.h"),
)


def _programs(root: Path) -> list[str]:
    nodes = {str(n): f"{REPRODUCERS}/test_errata_{n}.py::test_it" for n in (1, 2)}
    return list(programs(root, ERRATA, nodes).values())


def test_measurement_depends_on_its_own_program(tmp_path: Path) -> None:
    """What is measured again is what an edit changes: code of a reproducer, of a helper it imports,
    of the ring below all; not another reproducer, nor a comment, nor what all tests share."""
    helper = f"{REPRODUCERS}/provided.py"
    sources = {
        f"{REPRODUCERS}/test_errata_1.py": (
            "from __future__ import annotations\n"
            "from tests.kernel_gated.errata import provided\n"
            "from tests.support import TIMEOUT\n"
            "def test_it() -> None:\n    assert provided.SIZE == 1\n"
        ),
        f"{REPRODUCERS}/test_errata_2.py": "import os\ndef test_it() -> None: os.getpid()\n",
        helper: "SIZE = 1\n",
        f"{REPRODUCERS}/__init__.py": "",
        "tests/support.py": "TIMEOUT = 60\n",
        "ioxide/_probe/rawring.py": "from ioxide import reactor\n",
        "ioxide/_ring/probe.c": 'int f(void) { return puts("//"); }\n',
        "ioxide/_ring/probe.h": "int f(void);\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    first = _programs(tmp_path)
    assert first[0] != first[1]

    def changed(name: str, text: str) -> list[bool]:
        (tmp_path / name).write_text(text)
        now = _programs(tmp_path)
        (tmp_path / name).write_text(sources[name])
        return [one != other for one, other in zip(first, now, strict=True)]

    own, in_c = f"{REPRODUCERS}/test_errata_1.py", "ioxide/_ring/probe.c"
    documented = sources[own].replace("None:", 'None:\n    """A promise."""  # why')
    assert [False, False] == changed(own, documented)
    assert [True, False] == changed(own, sources[own].replace("== 1", "== 2"))
    assert [False, False] == changed(helper, f"# how many\n\n{sources[helper]}")
    assert [True, False] == changed(helper, "SIZE = 2\n")
    assert [False, False] == changed("tests/support.py", "TIMEOUT = 61\n")
    assert [False, False] == changed(in_c, f"/* what\n * for */\n{sources[in_c]}// end\n")
    assert [True, True] == changed(in_c, sources[in_c].replace("//", "/ /"))


@pytest.mark.parametrize(
    ("reproducer", "sentence"),
    [
        ("async def test_it() -> None: pass", "has no function test_it"),
        ("def test_it(tmp_path): pass", "test_it wants arguments"),
        ("def test_it():\n    yield", "test_it yields"),
        ("", "has no function test_it"),
    ],
)
def test_reproducer_that_would_not_run_is_refused(
    tmp_path: Path, reproducer: str, sentence: str
) -> None:
    """What a call does not run would find every erratum absent."""
    module = f"{REPRODUCERS}/test_errata_it.py"
    (tmp_path / module).parent.mkdir(parents=True)
    (tmp_path / module).write_text(reproducer)
    with pytest.raises(LabError, match=sentence):
        programs(tmp_path, ERRATA, {"IOX-ERR-001": f"{module}::test_it"})
