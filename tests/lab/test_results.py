# SPDX-License-Identifier: MIT
"""results.json and summary.md: what real runs write is what docs/results.schema.json says."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import jsonschema
import pytest

from lab.facts.verdicts import Conclusion, ExitCode
from lab.report import content, markdown
from tests.lab.suite_support import REPOSITORY, Little, Ran
from tests.lab.test_errata_verdict import NODE, REPRODUCER, TOML

pytestmark = pytest.mark.lab

SCHEMA = json.loads((REPOSITORY / "docs/results.schema.json").read_text())
TESTS = """
def test_good(): pass
def test_bad(): assert 0, "<b>|x"
@pytest.mark.needs("NAPI")
def test_skipped(): pass
@pytest.mark.guest(memory="900M")
def test_elsewhere(): pass
"""


def whole_of(ran: Ran) -> dict[str, Any]:
    """The run's results.json, which fits the schema, and whose summary and page are
    there."""
    whole = json.loads((ran.files / "results.json").read_text())
    jsonschema.validate(whole, SCHEMA)
    assert markdown.markdown(whole) == (ran.files / "summary.md").read_text()
    shown = (ran.files / "report.html").read_text()
    assert all(f'<a href="#k-{n}">{name}</a>' in shown for n, name in enumerate(whole["legs"]))
    return dict(whole)


def test_schema_is_of_this_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert content.VERSION == SCHEMA["properties"]["version"]["const"]


def test_results_of_a_run_fit_the_schema(little: Little) -> None:
    """Every kind of verdict, an erratum, and a surprise: by kernel and id, with reasons."""
    little.write("tests/kernels/errata.toml", TOML.format(node=NODE, bad='["6.12.107"]', good="[]"))
    little.tests(REPRODUCER, NODE.partition("::")[0])
    little.tests(TESTS)
    path = little.root / "tests/kernels/expected.toml"
    path.write_text(path.read_text().replace('"6.12".INC = "yes', '"6.12".INC = "no'))

    ran = little.lab("--lab-guests=1")

    whole = whole_of(ran)
    assert 1 == ran.code == whole["exit"]["code"]
    assert ["6.12.107"] == list(whole["legs"])
    leg = whole["legs"]["6.12.107"]
    verdicts = leg["verdicts"]
    assert "skipped" == verdicts["tests/test_it.py::test_skipped"]["verdict"]
    assert "needs NAPI" in verdicts["tests/test_it.py::test_skipped"]["why"]
    assert ["--memory=900M"] == verdicts["tests/test_it.py::test_elsewhere"]["guest"]
    assert ("6.12", "6.12.107-1") == (leg["asked"], leg["kernel"]["package"])
    assert {"tree_sha256", "extension_sha256", "bytecode_sha256"} == set(leg["identity"])
    seen = leg["capabilities"]["INC"]
    assert (True, False, True) == (seen["observed"], seen["promised"], seen["surprise"])
    assert [("IOX-ERR-001", "known_bad", "xfailed")] == [
        (found["id"], found["listed"], found["verdict"]) for found in leg["errata"]
    ]
    told = (ran.files / "summary.md").read_text()
    assert "| failed | tests/test\\_it.py::test\\_bad |" in told
    assert "&lt;b&gt;" not in told
    assert "&#60;b&#62;&#124;x" in told
    assert f"**exit 1**: {markdown.plain(whole['exit']['why'])}" in told


def test_results_name_the_evidence_of_each_verdict(little: Little) -> None:
    """Where a test's output and the kernel's words are, when and in which guest it ran, and the
    line that runs it again. A test cannot make another one's words its own."""
    little.tests(
        """
def say(text):
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log: log.write(text + "\\n")
def test_quiet(): pass
@pytest.mark.issue(92)
def test_bad():
    print("loud \\x00")
    say("<13>[    2.000000] lab: end 2 .")
    say("[    2.000000] BUG: KASAN: use-after-free in it")
    assert 0, "because"
def test_gone(): os._exit(3)
def test_behind(): say("[    3.000000] harmless")
"""
    )

    ran = little.lab("--lab-guests=1")

    whole = whole_of(ran)
    (leg,) = whole["legs"].values()
    quiet, bad, gone, behind = leg["verdicts"].values()
    assert whole["began"] <= whole["ended"]
    assert (None, 0, []) == (quiet["output"], quiet["ran_in"], quiet["complaints"])
    assert quiet["began"] <= bad["began"] <= gone["began"] <= behind["began"] <= whole["seconds"]
    assert [92] == bad["issues"]
    assert "make lab KERNEL=6.12.107 T=tests/test_it.py::test_bad" == bad["reproduce"]
    told = part_of(ran, bad["output"])
    assert "assert 0" in told
    assert "-- Captured stdout call\nloud \x00\n" in told
    assert ["[    2.000000] BUG: KASAN: use-after-free in it"] == bad["complaints"]
    kernel = part_of(ran, bad["kernel_log"])
    assert "lab: end 2 .\n[    2.000000] BUG: KASAN: use-after-free in it\n" in kernel
    assert "harmless" not in kernel
    assert "lab: start 1 " not in kernel
    assert "lost: " in part_of(ran, gone["output"])
    assert "harmless" in part_of(ran, behind["kernel_log"])
    (guest,) = leg["guests"]
    assert (1, ".") == (guest["number"], guest["files"])
    assert guest["began"] <= guest["up"] <= quiet["began"]
    assert behind["began"] <= guest["ended"] <= whole["seconds"]


def part_of(ran: Ran, part: Mapping[str, Any]) -> str:
    """What a part of one of a run's files says."""
    data: bytes = (ran.files / part["file"]).read_bytes()
    return data[part["begin"] : part["end"]].decode()


@pytest.mark.parametrize(
    ("fake", "tests", "code"),
    [
        ({"never_boots": True}, "def test_it(): pass\n", 3),
        ({}, "def test_it(): os._exit(3)\n", 3),
        ({}, "@pytest.mark.needs('NAPI')\ndef test_it(): pass\n", 3),
        ({}, "def test_it(:\n", 1),
        ({}, f"def test_it(): os.kill(os.getppid(), {int(signal.SIGTERM)}); time.sleep(60)\n", 130),
    ],
    ids=["no guest", "lost", "nothing passed", "not collected", "interrupted"],
)
def test_results_of_a_run_that_proved_nothing_fit_the_schema(
    little: Little, fake: Mapping[str, Any], tests: str, code: int
) -> None:
    """A run that ended early has written what it came to."""
    little.tests(tests)

    ran = little.lab(fake=fake)

    whole = whole_of(ran)
    assert code == ran.code == whole["exit"]["code"], ran.output
    assert [code] == [leg["exit"]["code"] for leg in whole["legs"].values()]


def test_results_of_a_kernel_that_cannot_be_had(little: Little) -> None:
    """Nothing could be asked of it, and the results say so."""
    little.tests("def test_it(): pass\n")

    ran = little.lab(kernel="6.10")

    leg = whole_of(ran)["legs"]["6.10"]
    assert (3, None, {}) == (ran.code, leg["kernel"], leg["verdicts"])
    assert "no source has 6.10" in leg["exit"]["why"]
    assert "not to be had" in (ran.files / "summary.md").read_text()


def test_collecting_writes_no_results(little: Little) -> None:
    little.tests("def test_it(): pass\n")
    ran = little.lab("--collect-only", kernel="6.10")
    assert 3 == ran.code
    assert not (little.root / "lab-results").exists()


def test_several_kernels_are_one_file() -> None:
    """Two packages of one upstream version are two legs, and the summary has a column for each."""
    conclusion = Conclusion(ExitCode.NOT_PROVED, "nothing ran")
    one = content.leg_not_begun("6.12.94", conclusion)
    two = {**deepcopy(one), "asked": "6.12.94-1~bpo12+1"}
    seen = {"observed": True, "surprise": False}
    one["capabilities"] = {"INC": {**seen, "observed": False}, "NAPI": {**seen, "surprise": True}}
    two["capabilities"] = {"INC": seen}

    whole = content.content([one, two], conclusion, 1.0)

    assert ["6.12.94", "6.12.94 (6.12.94-1~bpo12+1)"] == list(whole["legs"])
    told = markdown.markdown(whole)
    assert f"| capability | 6.12.94 | {markdown.plain('6.12.94 (6.12.94-1~bpo12+1)')} |" in told
    assert "| NAPI | yes \\! | - |" in told


def test_words_of_a_test_stay_text_in_markdown() -> None:
    """No link, image, mention or row of their own comes of them, and no line without end."""
    said = markdown.plain("![x](http://y)\n| <img> @somebody `" + "a" * 1000)
    assert "\n" not in said
    assert said.startswith("\\!\\[x\\]\\(http://y\\) &#124; &#60;img&#62; &#64;somebody \\`")
    assert len(said) < 600
