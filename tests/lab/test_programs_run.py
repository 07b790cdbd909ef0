# SPDX-License-Identifier: MIT
"""Programs beside pytest's tests in one run of `lab test`, in guests that are none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from .suite_support import TWO, Little, Ran

pytestmark = pytest.mark.lab

GOOD = "print('1..2\\nok 1 - a\\nok 2 - b')"


def programs(little: Little, files: dict[str, str], **keys: str) -> None:
    """Write programs and the table that names them."""
    for name, text in files.items():
        head = "" if text.startswith("#!") else f"#!{sys.executable} -IS\nimport os, signal, time\n"
        little.write(f"tests/programs/{name}", f"{head}{text}\n")
        (little.root / "tests/programs" / name).chmod(0o755)
    settings = little.root / "pyproject.toml"
    text = settings.read_text()
    if "[tool.lab]" not in text:
        text += '\n[tool.lab]\nkernels = ["6.12"]\n'
    text += '\n[[tool.lab.programs]]\nname = "unit"\n'
    text += "".join(
        f"{key} = {value}\n" for key, value in {"directory": '"tests/programs"', **keys}.items()
    )
    settings.write_text(text)


def verdicts(ran: Ran) -> dict[str, str]:
    assert ran.results is not None, ran.output
    return {name: found["verdict"] for name, found in ran.results["verdicts"].items()}


def why(ran: Ran, name: str) -> str:
    assert ran.results is not None, ran.output
    return str(ran.results["verdicts"][name]["why"])


def test_programs_stand_beside_tests_in_one_run(little: Little) -> None:
    little.tests(TWO)
    programs(little, {"quiet": "pass", "tap": GOOD})
    ran = little.lab()

    assert {
        "tests/test_it.py::test_one": "passed",
        "tests/test_it.py::test_two": "passed",
        "unit/quiet": "passed",
        "unit/tap": "passed",
    } == verdicts(ran)
    assert 0 == ran.code
    assert ran.results is not None
    assert [
        {"name": "a", "state": "passed", "why": ""},
        {"name": "b", "state": "passed", "why": ""},
    ] == ran.results["verdicts"]["unit/tap"]["subtests"]
    junit = (ran.files / "junit.xml").read_text()
    assert 'name="unit.tap"' in junit
    assert "lab-subtests" not in junit


def test_each_bad_program_has_its_own_verdict_and_the_rest_goes_on(little: Little) -> None:
    little.tests(TWO)
    programs(
        little,
        {
            "a_crash": "os.abort()",
            "b_status": "os.write(2, b'no such thing\\n'); os._exit(9)",
            "c_subtest": "print('1..2\\nok 1 - a\\nnot ok 2 - b'); raise SystemExit(1)",
            "d_cut": "print('1..3\\nok 1 - a')",
            "e_killer": "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
            "f_daemon": "if os.fork() == 0: time.sleep(300)\nprint('1..1\\nok 1')",
            "g_endless": "signal.signal(15, signal.SIG_IGN)\ntime.sleep(300)",
            "h_good": GOOD,
        },
        timeout="3",
    )
    ran = little.lab()

    assert {
        "unit/a_crash": "failed",
        "unit/b_status": "failed",
        "unit/c_subtest": "failed",
        "unit/d_cut": "failed",
        "unit/e_killer": "lost",
        "unit/f_daemon": "passed",
        "unit/g_endless": "failed",
        "unit/h_good": "passed",
        "tests/test_it.py::test_one": "passed",
        "tests/test_it.py::test_two": "passed",
    } == verdicts(ran)
    assert [
        "it was killed by SIGABRT",
        "it ended with status 9: no such thing",
        "1 of 2 subtests failed: b",
        "3 tests planned, 1 reported",
        "the test process was killed by SIGKILL",
        "",
    ] == [
        why(ran, f"unit/{name}")
        for name in ("a_crash", "b_status", "c_subtest", "d_cut", "e_killer", "f_daemon")
    ]
    assert "it did not end within" in why(ran, "unit/g_endless")
    assert 1 == ran.code
    assert "unit/c_subtest: 1 of 2 subtests failed: b" in ran.output


def test_program_that_another_one_wrote_over_is_not_run(little: Little) -> None:
    """What was sent was proved when pytest started; what stands in its place is another's."""
    programs(
        little,
        {
            "a_writer": "open('z_bad', 'w').write('#!/bin/sh\\n')\nos.unlink('z_gone')",
            "z_bad": "raise SystemExit(1)",
            "z_gone": GOOD,
        },
    )
    ran = little.lab("unit")

    assert "passed" == verdicts(ran)["unit/a_writer"]
    assert "z_bad is not what was sent: something wrote to it" in why(ran, "unit/z_bad")
    assert "there is no file" in why(ran, "unit/z_gone")
    assert 1 == ran.code


@pytest.mark.parametrize(
    "text",
    [
        "print('needs NAPI: not here'); raise SystemExit(77)",
        "print('1..0 # SKIP needs NAPI: not here')",
    ],
)
def test_skip_that_probe_and_contract_confirm(little: Little, text: str) -> None:
    little.tests(TWO)
    programs(little, {"napi": text})
    ran = little.lab()

    assert ("skipped", "needs NAPI: not here") == (
        verdicts(ran)["unit/napi"],
        why(ran, "unit/napi"),
    )
    assert 0 == ran.code


def test_skip_for_another_reason_counts_as_in_pytest(little: Little) -> None:
    little.tests(TWO)
    programs(little, {"moon": "print('wrong phase of the moon'); raise SystemExit(4)"})
    ran = little.lab()

    assert "failed" == verdicts(ran)["unit/moon"]
    assert "skip refused: 'wrong phase of the moon'" in why(ran, "unit/moon")
    assert 1 == ran.code


def test_run_of_skips_alone_proves_nothing(little: Little) -> None:
    programs(little, {"napi": "print('needs NAPI: not here'); raise SystemExit(77)"})
    ran = little.lab("unit/napi")

    assert {"unit/napi": "skipped"} == verdicts(ran)
    assert 3 == ran.code


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["unit/one"], ["unit/one"]),
        (["unit"], ["unit/one", "unit/two"]),
        (["-k", "two"], ["tests/test_it.py::test_two", "unit/two"]),
        (["tests/test_it.py::test_one", "unit/two"], ["tests/test_it.py::test_one", "unit/two"]),
        (["tests/test_it.py"], ["tests/test_it.py::test_one", "tests/test_it.py::test_two"]),
        (["unit", "--deselect", "unit/one"], ["unit/two"]),
    ],
)
def test_arguments_choose_programs_too(
    little: Little, arguments: list[str], names: list[str]
) -> None:
    little.tests(TWO)
    programs(little, {"one": GOOD, "two": GOOD})
    ran = little.lab(*arguments)

    assert dict.fromkeys(names, "passed") == verdicts(ran)
    assert 0 == ran.code


def test_program_that_is_not_there_ends_the_run_before_it_boots(little: Little) -> None:
    little.tests(TWO)
    programs(little, {"one": "#!/no/such/shell\n"})
    ran = little.lab()

    assert 2 == ran.code
    assert (
        "lab: exit 2 (usage): programs unit: the interpreter of tests/programs/one, "
        "/no/such/shell, is not on this machine"
    ) == ran.last_line
    assert ran.results is None


def test_time_limit_of_the_run_is_the_programs_too(little: Little) -> None:
    programs(little, {"endless": "time.sleep(300)", "good": GOOD})
    ran = little.lab("unit", "--lab-timeout", "10")

    assert {"unit/endless": "failed", "unit/good": "passed"} == verdicts(ran)
    assert "it did not end within 8 s and was killed" == why(ran, "unit/endless")


def test_plain_pytest_runs_no_program(little: Little) -> None:
    little.tests(TWO)
    programs(little, {"bad": "os._exit(1)"})
    ran = little.pytest()

    assert 0 == ran.code
    assert "2 passed" in ran.output


def test_nothing_of_this_machine_is_tidied(little: Little, tmp_path: Path) -> None:
    mine = Path(f"/tmp/lab-programs-{os.getpid()}")
    programs(little, {"one": f"open('{mine}', 'w')\nopen('{tmp_path}/two', 'w')"})
    try:
        assert 0 == little.lab("unit").code
        assert mine.exists()
    finally:
        mine.unlink(missing_ok=True)


def test_what_it_printed_is_there_although_its_guest_died(little: Little) -> None:
    """It comes out of the guest as it is printed, by standard output and error; of the program
    before it there is nothing."""
    little.tests(TWO)
    panic = "open(os.environ['LAB_FAKE_KMSG'], 'a').write('<0>Kernel panic - not syncing: fake\\n')"
    says = "os.write(1, b'said first\\n'); os.write(2, b'said last\\n'); time.sleep(0.3)"
    programs(
        little,
        {
            "a_good": "print('of no use')",
            "panics": f"{says}\n{panic}\ntime.sleep(60)",
            "shoots": f"{says}\nos.kill(os.getppid(), 9)\ntime.sleep(60)",
        },
    )

    ran = little.lab()

    assert ran.results is not None, ran.output
    for name, verdict in (("unit/panics", "splat"), ("unit/shoots", "lost")):
        record = ran.results["verdicts"][name]
        assert verdict == record["verdict"], ran.output
        part = record["output"]
        output = (ran.files / part["file"]).read_text()[part["begin"] : part["end"]]
        assert "-- Captured stdout until it was lost\nsaid first\nsaid last\n" in output
        assert "of no use" not in output
