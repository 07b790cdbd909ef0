# SPDX-License-Identifier: MIT
"""What the lab's pages tell somebody with a repository of their own, held against the lab."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, project, wishes
from lab.commands import choosing
from lab.facts.probed import Probed
from lab.facts.verdicts import ExitCode, Verdict, Weight, weight
from lab.project import table
from lab.rules import contract, dmesg
from lab.suite import plugin
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SOURCE = "docs/kernels-from-source.md"
PAGES = ("docs/lab.md", "docs/lab-guests.md", SOURCE, "lab/README.md")
LAB = (ROOT / "docs/lab.md").read_text()
WEIGHTS = {
    "proves": Weight.PROVES,
    "neutral": Weight.HARMLESS,
    "disproves: 1": Weight.DISPROVES,
    "not proved: 3": Weight.UNPROVES,
}


OTHERS = ("--junitxml", "--collect-only", "--tx", "--dist")
"""Options of pytest's own and of pytest-xdist's on the pages."""


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks of one language."""
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(title: str, page: str = "docs/lab.md") -> str:
    """The text below one heading, up to the next."""
    text = (ROOT / page).read_text()
    return re.split(r"\n#+ ", text.split(f"# {title}\n")[1])[0]


def rows(text: str) -> list[list[str]]:
    """The rows of the table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def every_command() -> Iterator[str]:
    """Every line that the pages have a reader type."""
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield line.removeprefix("$ ").partition(" # ")[0].strip()


@pytest.mark.parametrize("page", PAGES)
def test_every_table_of_the_pages_is_one(page: str, tmp_path: Path) -> None:
    found = [text for text in blocks(page, "toml") if "[tool.lab" in text]
    assert found or page in ("docs/lab-guests.md", SOURCE)
    for text in found:
        whole = text if "[tool.lab]" in text else f'[tool.lab]\nkernels = ["6.1"]\n{text}'
        (tmp_path / "pyproject.toml").write_text(whole)
        project.read(tmp_path)


def test_every_key_is_listed_and_shown() -> None:
    keys = {*table._KEYS, *wishes.KEYS}
    assert {row[0].strip("`") for row in rows(section("The table"))} == keys
    [shown] = [text for text in blocks("docs/lab.md", "toml") if "environment-exclude" in text]
    named = set(re.findall(r"^([a-z-]+) =|^\[+tool\.lab\.(\w+)", shown, re.MULTILINE))
    inner = {*table._ERRATA, *table._PROGRAM_KEYS}
    assert {one or other for one, other in named} | inner == keys | inner


def test_the_faults_of_a_table_are_told_as_shown(tmp_path: Path) -> None:
    text = "# a\n[tool.lab]\nkernels = 6.12\nmemry = 1\n"
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(project.reader.UsageError) as raised:  # type: ignore[attr-defined]
        project.read(tmp_path)
    assert f"```\n{raised.value}\n```" in LAB


def test_every_verdict_is_listed_with_what_it_does() -> None:
    found = {row[0]: WEIGHTS[row[2]] for row in rows(section("Verdicts"))}
    assert found == {str(verdict): weight(verdict) for verdict in Verdict}


@pytest.mark.parametrize("page", ["docs/lab.md", "lab/README.md"])
def test_every_exit_code_is_listed(page: str) -> None:
    title = "Exit codes" if page == "docs/lab.md" else "kernel-lab"
    found = {int(row[0]): row[1] for row in rows(section(title, page))}
    assert found == {int(code): code.name.lower().replace("_", " ") for code in ExitCode}


def test_every_option_of_lab_test_is_listed() -> None:
    """Those of `lab test`, and those of the plugin that these do not stand for."""
    parser = argparse.ArgumentParser(add_help=False)
    choosing.add_options(parser, several=True)
    choosing.add_launcher(parser)
    choosing.add_wishes(parser)
    ours = {flag for action in parser._actions for flag in action.option_strings}
    ours |= {"--as", "--repeat", "--hold", "--gdb", "--dump"}
    theirs = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(theirs)
    flags = {name for group in theirs._groups for one in group.options for name in one.names()}
    short = {flag for flag in flags if f"--{flag.removeprefix('--lab-')}" in ours}
    listed = set(
        re.findall(r"--[a-z-]+", "".join(r[0] for r in rows(section("Options of `lab test`"))))
    )
    assert listed == ours | (flags - short - {"--lab-guest"})


@pytest.mark.parametrize("words", sorted(set(every_command())))
def test_every_command_of_the_pages_is_understood(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are those of its command."""
    name, *rest = shlex.split(words)
    if name not in ("lab", "pytest"):
        assert name in ("pip", "cd", "make", "apt-get", "dnf", "drgn")
        return
    before = rest[: rest.index("--")] if "--" in rest else rest
    verbs = [word for word in before[: 2 if before[:1] == ["kernels"] else 1] if name == "lab"]
    with pytest.raises(SystemExit) as raised:
        cli.main([*(verbs or ["test"]), "--help"])
    assert 0 == raised.value.code
    known = capsys.readouterr().out
    theirs = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(theirs)
    flags = {flag for group in theirs._groups for one in group.options for flag in one.names()}
    for word in before:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in OTHERS:
            assert flag in flags or f"{flag} " in known or f"{flag}]" in known, flag


def test_the_tests_of_the_page_pass_in_a_guest(little: Little) -> None:
    [text] = [text for text in blocks("docs/lab.md", "python") if "lab_identity" in text]
    little.write("tests/test_page.py", text)
    ran = little.lab("--lab-slow")
    assert ran.code == 0, ran.output
    assert set(ran.verdicts.values()) == {"passed"}
    assert len(ran.verdicts) == text.count("\ndef test_")
    assert text.count("\ndef test_") - 1 == len(little.lab().verdicts)


def test_the_probe_the_contract_and_the_allowance_of_the_page_can_be_read(tmp_path: Path) -> None:
    [shown] = blocks("docs/lab.md", "json")
    probe = Probed.from_json(shown)
    assert probe.findings["INC"].observed is True
    [promise] = [text for text in blocks("docs/lab.md", "toml") if text.startswith('"6.1".INC')]
    (tmp_path / "kernels.toml").write_text(promise)
    found = contract.read(tmp_path / "kernels.toml")
    row = found.row("6.12")
    assert row is not None
    assert contract.compare(row, probe, own_machine=False).surprises == ()
    [allowance] = [text for text in blocks("docs/lab.md", "toml") if text.startswith("[[allow]]")]
    [one] = dmesg.read_allowances(allowance)
    assert one.kernels == ("6.12",)


def test_the_files_of_a_run_are_those_of_the_page(little: Little) -> None:
    little.write("tests/test_it.py", "def test_one(): print(1)\n")
    ran = little.lab()
    there = {path.name for path in ran.files.iterdir()}
    listed = {row[0].split("`")[1] for row in rows(section("The report"))} - {"guest-2/"}
    assert listed <= there, ran.output
    json.loads((ran.files / "results.json").read_text())
