# SPDX-License-Identifier: MIT
"""Keys of the table that say what is so in a guest: set-up, allowed complaints, plugins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab.suite_support import TABLE, TWO, Little

pytestmark = pytest.mark.lab


def with_keys(little: Little, keys: str) -> None:
    """Add keys to the table."""
    settings = little.root / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]\n", f"[tool.lab]\n{keys}\n", 1))


def setup(little: Little, text: str) -> None:
    """Have this Python program set guests up."""
    little.write("tests/prepare.py", text)
    with_keys(little, 'setup = "python tests/prepare.py"')


def test_setup_runs_in_each_guest_before_its_tests(little: Little) -> None:
    """In the tree, once for a guest, whatever its tests asked for."""
    setup(little, "open('prepared', 'a').write('.')\n")
    little.tests("""
from pathlib import Path
def said(): return Path("prepared").read_text()
def test_a(): assert said() == "."
def test_dies(): os._exit(1)
def test_b(): assert said() == "."
@pytest.mark.guest(cpus=2)
def test_other(): assert said() == "."
""")

    ran = little.lab("--lab-guests", "1")

    passed = dict.fromkeys(("test_a", "test_b", "test_other"), "passed")
    assert passed | {"test_dies": "lost"} == ran.verdicts, ran.output
    assert not (little.root / "prepared").exists()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            'setup = ["python", "-c", "import sys; sys.exit(\'no compiler\')"]',
            "ended with status 1 in the guest",
        ),
        ('setup = "no-such-command -x"', "the set-up command 'no-such-command -x' did not run: "),
    ],
    ids=("fails", "is-not-there"),
)
def test_setup_that_fails_is_a_sentence_and_no_test_is_lost(
    little: Little, keys: str, sentence: str
) -> None:
    """Nothing runs without what it was to have; each test is named as one that never ran."""
    little.tests(TWO)
    with_keys(little, keys)

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert {"test_one": "never ran", "test_two": "never ran"} == ran.verdicts
    assert sentence in ran.last_line
    assert "no compiler" in ran.output or "no-such-command" in ran.last_line


def test_setup_that_fails_in_one_guest_costs_its_tests_alone(little: Little) -> None:
    """Those of the other guests run."""
    setup(little, "import os, sys\nsys.exit(int('cpus=2' in os.environ['LAB_FAKE_WISHES']))\n")
    little.tests("@pytest.mark.guest(cpus=2)\ndef test_other(): pass\ndef test_usual(): pass\n")

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 3, ran.output
    assert {"test_other": "lost", "test_usual": "passed"} == ran.verdicts
    assert "ended with status 1 in the guest" in ran.why("test_other")


COMPLAINT = "[    1.500000] BUG: our own driver is unhappy"


def test_complaint_that_the_repository_allows_is_none(little: Little) -> None:
    """dmesg-allow names it; without it, the run is disproved."""
    little.tests(TWO)
    fake = {"says_at": {"start": COMPLAINT}}
    assert 1 == little.lab(fake=fake).code

    little.write(
        "tests/allow.toml",
        "[[allow]]\nkernels = 'every'\nreason = 'it always says so'\n"
        "pattern = 'BUG: our own driver is unhappy'\n",
    )
    with_keys(little, 'dmesg-allow = "tests/allow.toml"')
    ran = little.lab(fake=fake)

    assert ran.code == 0, ran.output
    other = {"says_at": {"start": "[    1.500000] BUG: something else"}}
    assert 1 == little.lab(fake=other).code


def test_plugin_that_is_not_installed_is_one_sentence(little: Little) -> None:
    """Before anything boots, with the line of the table."""
    little.tests(TWO)
    settings = little.root / "pyproject.toml"
    settings.write_text(settings.read_text().replace("plugins = []", 'plugins = ["nosuch"]'))

    ran = little.lab()

    assert ran.code == 2, ran.output
    words = f"the plugin nosuch is not installed in the environment of {sys.executable}"
    assert words in ran.output
    assert "booting" not in ran.output


def test_guest_loads_the_plugins_of_the_table_alone(little: Little) -> None:
    """Whatever else the environment has."""
    assert "plugins = []" in TABLE
    settings = little.root / "pyproject.toml"
    settings.write_text(settings.read_text().replace("plugins = []", 'plugins = ["anyio"]'))
    little.tests("""
def test_plugins(request):
    manager = request.config.pluginmanager
    installed = {"anyio", "xdist", "pytest_cov", "asyncio", "hypothesispytest"}
    assert {"anyio"} == {name for name in installed if manager.hasplugin(name)}
""")

    ran = little.lab("-p", "anyio", "tests")

    assert {"test_plugins": "passed"} == ran.verdicts, ran.output


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("tests/lab", 'no guest has it: [tool.lab] of pyproject.toml has exclude = ["tests/lab"]'),
        ("lab/cli.py", "no guest has it: it does not travel by the key include"),
    ],
)
def test_path_that_no_guest_has_is_one_sentence(
    little: Little, argument: str, sentence: str
) -> None:
    """With the key that keeps it here."""
    little.tests(TWO)

    ran = little.lab(argument)

    assert ran.code == 2, ran.output
    assert f"{argument}: {sentence}" in ran.output


def test_broken_table_is_said_where_the_lock_is_needed(little: Little) -> None:
    """`kernels list` would show others than the repository's."""
    with_keys(little, "kernel = 5")

    ran = little.run("lab", "kernels", "list")

    assert ran.code == 2, ran.output
    assert "kernel is no key of [tool.lab]" in ran.last_line


def test_probe_that_fails_with_a_whole_report_is_not_believed(little: Little) -> None:
    """Its exit status says that something went wrong, and its report that nothing did."""
    little.tests(TWO)
    little.write("ioxide/__main__.py", "import ioxide\nprint(ioxide.probe().to_json())\nexit(5)\n")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert "printed a report without an error, and ended with status 5" in ran.last_line
    assert {"never ran"} == set(ran.verdicts.values())


def test_path_of_a_directory_names_its_programs(little: Little) -> None:
    """So does the root."""
    little.tests(TWO)
    little.write("tests/programs/good", "#!/bin/sh\nexit 0\n")
    Path(little.root / "tests/programs/good").chmod(0o755)
    settings = little.root / "pyproject.toml"
    table = '[[tool.lab.programs]]\nname = "unit"\ndirectory = "tests/programs"\n'
    settings.write_text(f"{settings.read_text()}\n{table}")

    for argument in (".", "tests/programs"):
        ran = little.lab(argument)
        assert ran.results is not None, ran.output
        assert "passed" == ran.results["verdicts"]["unit/good"]["verdict"], ran.output
