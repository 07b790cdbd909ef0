# SPDX-License-Identifier: MIT
"""The contract in whole runs, with fake guests and on this machine: surprises, skips, masks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.lab.suite_support import REPOSITORY, Little

pytestmark = pytest.mark.lab

HERE = ".".join(os.uname().release.split(".")[:2])
TESTS = """
def test_plain(): pass
@pytest.mark.needs("INC")
def test_inc(): pass
@pytest.mark.needs("NAPI")
def test_napi(): pass
"""


def promise(little: Little, line: str) -> None:
    """Write one cell of the little repository's contract, in the place of the one there was."""
    path = little.root / "tests/kernels/expected.toml"
    key = line.split(" = ")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{key} ")]
    path.write_text("\n".join([*kept, line, ""]))


@pytest.fixture
def real(little: Little) -> Little:
    """A little repository with the real ioxide and the real contract."""
    shutil.rmtree(little.root / "ioxide")
    shutil.copytree(REPOSITORY / "ioxide", little.root / "ioxide")
    shutil.copy(REPOSITORY / "tests/kernels/expected.toml", little.root / "tests/kernels")
    return little


# -- in guests -------------------------------------------------------------------------------------


def test_guest_that_keeps_the_contract_is_green(little: Little) -> None:
    """Where everything is as promised the report says what was promised, and no surprise."""
    little.tests(TESTS)

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert ran.results is not None
    assert "6.12" == ran.results["cell"]
    assert [] == ran.results["contract"]["surprises"]
    assert {"present": False, "basis": "measured", "from": "6.12"} == (
        ran.results["contract"]["expected"]["NAPI"]
    )
    assert "promised: what the contract says of 6.12" in ran.output
    assert "surprise" not in ran.output


def test_denied_capability_that_is_there_is_a_surprise(little: Little) -> None:
    """Exit 1 with the line to write, although every test passed; with the line written, green."""
    promise(little, '"6.12".INC = "no, measured"')
    little.tests(TESTS)

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert "lab: exit 1 (disproved): capability INC surprise (2 passed, 1 skipped, 1 surprise)" == (
        ran.last_line
    )
    line = '"6.12".INC = "yes, measured"'
    assert f"and is observed; if that is right, write in tests/kernels/expected.toml: {line}" in (
        ran.output
    )
    assert ran.results is not None
    assert [line] == [found["edit"] for found in ran.results["contract"]["surprises"]]
    junit = (ran.files / "junit.xml").read_text()
    assert 'failures="1"' in junit
    assert "surprise: INC is denied 6.12" in junit

    promise(little, line)

    assert 0 == little.lab().code


def test_promised_capability_that_is_missing_is_a_surprise(little: Little) -> None:
    """Exit 1 with the line to write, and a test that is skipped for it fails."""
    promise(little, '"6.12".NAPI = "yes, measured"')
    little.tests(TESTS)

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert {"test_plain": "passed", "test_inc": "passed", "test_napi": "failed"} == ran.verdicts
    assert "(counter stayed 0), but tests/kernels/expected.toml promises NAPI on 6.12" in (
        ran.why("test_napi")
    )
    assert '"6.12".NAPI = "no, measured"' in ran.output


def test_promised_capability_that_could_not_be_tried_is_a_surprise_in_a_guest(
    little: Little,
) -> None:
    """In a guest the lab makes all that the probe needs, so "not tried" is no excuse."""
    promise(little, '"6.12".ZCRX = "yes, measured"')
    little.tests("def test_plain(): pass\n@pytest.mark.needs('ZCRX')\ndef test_zc(): pass\n")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert {"test_plain": "passed", "test_zc": "failed"} == ran.verdicts
    assert "surprise: ZCRX is promised on 6.12 (measured), and could not be tried" in ran.output


def test_series_without_a_row_says_what_it_inherits(little: Little) -> None:
    """A kernel whose series has no line is held against the nearest lower one, and it is said."""
    path = little.root / "tests/kernels/expected.toml"
    path.write_text(path.read_text().replace('"6.12"', '"6.6"'))
    little.tests(TESTS)

    ran = little.lab()

    assert ran.code == 0, ran.output
    sentence = "6.12 has no row in tests/kernels/expected.toml and inherits 3 from 6.6"
    assert sentence in ran.output
    assert ran.results is not None
    assert sentence == ran.results["contract"]["inherited"]


def test_broken_contract_proves_nothing(little: Little) -> None:
    """A cell that cannot be read ends the run before a guest boots, and names the cell."""
    promise(little, '"6.12".NAPI = "perhaps"')
    little.tests(TESTS)

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert "\"6.12\".NAPI is 'perhaps'" in ran.last_line
    assert ran.results is not None
    assert (3, []) == (ran.results["exit"]["code"], ran.results["guests"])


@pytest.mark.parametrize(
    ("needs", "why"),
    [('"XYZ"', "XYZ is unknown to every row"), ('"ZCRX", "GONE"', "has ZCRX together with GONE")],
)
def test_test_that_no_kernel_could_run_is_an_error(little: Little, needs: str, why: str) -> None:
    """It is an error while it is collected, in guests and locally, and no silent skip for ever."""
    promise(little, '"3.0".GONE = "yes, measured"')
    promise(little, '"6.12".GONE = "no, measured"')
    little.tests(f"def test_plain(): pass\n@pytest.mark.needs({needs})\ndef test_odd(): pass\n")

    guest, here = little.lab(), little.pytest()

    for ran in (guest, here):
        assert "tests/test_it.py::test_odd will never run: " in ran.output
        assert why in ran.output
    assert guest.code == 1, guest.output
    assert here.code == 2, here.output


# -- playing an older kernel, in guests ------------------------------------------------------------


def test_older_kernel_is_a_cell_of_its_own(real: Little) -> None:
    """What is masked is not observed and skipped for, in the cell "6.12 as 6.6" of every report,
    and never in that of 6.6."""
    real.tests("""
import ioxide
@pytest.mark.issue(104)
def test_refused():
    wanted = ioxide.ServerConfig(port=0, recv_bundle=True)
    with pytest.raises(ioxide.UnsupportedError, match="takes away BUNDLE"):
        ioxide.Driver(wanted)
@pytest.mark.needs("NO_SQARRAY")
def test_of_6_6(): pass
@pytest.mark.needs("INC")
def test_inc(): pass
""")

    ran = real.lab("--as", "6.6")

    assert ran.code == 0, ran.output
    assert {"test_refused": "passed", "test_of_6_6": "passed", "test_inc": "skipped"} == (
        ran.verdicts
    )
    assert "(masked)" in ran.why("test_inc")
    assert ran.results is not None
    told = ran.results["contract"]
    assert ("6.12 as 6.6", "6.12", "6.6") == (ran.results["cell"], told["series"], told["plays"])
    assert ["BUNDLE", "INC", "INC_BUNDLE", "NAPI", "MIN_WAIT"] == told["masked"][:5]
    assert "SEND_RECV_FIXED" == told["masked"][-1]
    assert {"present": False, "basis": "masked", "from": "6.12"} == told["expected"]["INC"]
    assert ran.files.resolve().name.endswith("-6.12.107-as-6.6")
    for words in (
        "lab: kernel 6.12.107 as 6.6 (",
        "- kernel 6.12.107 as 6.6 -",
        "promised: what the contract says of 6.12 as 6.6",
        "issue   6.12.107 as 6.6",
    ):
        assert words in ran.output
    assert 'value="6.12.107 as 6.6"' in (ran.files / "junit.xml").read_text()
    probe = json.loads((ran.files / "probe.json").read_text())
    assert "masked" == probe["capabilities"]["INC"]["note"]


def test_red_cell_is_seen_again_under_the_same_mask(real: Little) -> None:
    """The line that reproduces a failure names the older kernel that was played."""
    real.tests("def test_plain(): pass\ndef test_bad(): assert False\n")

    ran = real.lab("--as", "6.6")

    assert ran.code == 1, ran.output
    assert "make lab KERNEL=6.12.107 AS=6.6 T=tests/test_it.py::test_bad" in ran.output


@pytest.mark.parametrize(
    ("plays", "why"),
    [
        ("99.0", "a mask only takes away"),
        ("6.12", "an older series"),
        ("2.6", "its lowest row is 3.0"),
        ("+inc", "is no kernel series"),
    ],
)
def test_what_cannot_be_played_is_2(little: Little, plays: str, why: str) -> None:
    """Nothing runs, and the last line says why."""
    little.tests(TESTS)

    ran = little.lab("--as", plays)

    assert ran.code == 2, ran.output
    assert why in ran.last_line


def test_mask_of_this_machine_does_not_reach_guests(little: Little) -> None:
    """IOXIDE_CAPS beside `lab test` is a usage error, not a mask that is silently dropped."""
    little.tests(TESTS)

    ran = little.run(
        "lab", "test", "--kernel=6.12", "-p", "tests.lab.hostile.plugin", IOXIDE_CAPS="-inc"
    )

    assert ran.code == 2, ran.output
    assert "--as 6.6" in ran.output


# -- here ------------------------------------------------------------------------------------------


def test_surprise_here_is_red(little: Little) -> None:
    """Plain pytest holds this machine's kernel against the contract too, inherited cells as well,
    as soon as a test asks the probe."""
    promise(little, '"3.0".INC = "no, measured"')
    promise(little, '"6.12".INC = "no, measured"')
    little.tests(TESTS)

    asked, not_asked = little.pytest(), little.pytest("-k", "plain")

    assert asked.code == 1, asked.output
    assert f"surprise: INC is denied {HERE} (measured" in asked.output
    assert f'"{HERE}".INC = "yes, measured"' in asked.output
    assert not_asked.code == 0, not_asked.output


def test_unconfirmed_skip_here_is_a_failure(little: Little) -> None:
    """A test that is skipped for a capability which the contract promises this kernel fails."""
    promise(little, f'"{HERE}".NAPI = "yes, measured"')
    little.tests(TESTS)

    ran = little.pytest()

    assert ran.code == 1, ran.output
    assert f"tests/kernels/expected.toml promises NAPI on {HERE} (measured)" in ran.output
    assert f'"{HERE}".NAPI = "no, measured"' in ran.output
    assert "1 error" in ran.output


def test_what_could_not_be_tried_here_is_said(little: Little) -> None:
    """Without the rights for a probe its capability is no surprise, and not passed over either."""
    promise(little, f'"{HERE}".ZCRX = "yes, measured"')
    little.tests("def test_plain(): pass\n@pytest.mark.needs('ZCRX')\ndef test_zc(): pass\n")

    ran = little.pytest()

    assert ran.code == 0, ran.output
    assert "1 passed, 1 skipped" in ran.output
    assert f"note: ZCRX is promised on {HERE}, but could not be tried here (no device)" in (
        ran.output
    )


def test_kernel_older_than_every_row_is_taken_at_its_word(little: Little) -> None:
    """Where nothing is promised, the probe alone confirms a skip."""
    path: Path = little.root / "tests/kernels/expected.toml"
    path.write_text('"99.0".INC = "yes, assumed"\n"99.0".NAPI = "yes, assumed"\n')
    little.tests(TESTS)

    ran = little.pytest()

    assert ran.code == 0, ran.output
    assert "2 passed, 1 skipped" in ran.output


def test_mask_here(real: Little) -> None:
    """IOXIDE_CAPS is told in the header, skips what needs it, and leaves the rest."""
    real.tests("""
@pytest.mark.needs("SINGLE_ISSUER")
def test_rest(): pass
@pytest.mark.needs("MULTISHOT_RECV")
def test_masked(): assert False
""")

    ran = real.pytest(IOXIDE_CAPS="-multishot_recv,-msg_ring")

    assert ran.code == 0, ran.output
    assert "1 passed, 1 skipped" in ran.output
    assert f"lab: this kernel is {HERE} as -MSG_RING,-MULTISHOT_RECV, by IOXIDE_CAPS" in ran.output
    assert "(masked)" in ran.output


@pytest.mark.parametrize("text", ["+inc", "-nothing", "inc"])
def test_mask_that_cannot_be_meant_is_2(real: Little, text: str) -> None:
    """Nothing runs, whether or not a test would have asked the probe."""
    real.tests("def test_plain(): pass\n")

    ran = real.pytest(IOXIDE_CAPS=text)

    assert ran.code == 2, ran.output
    assert f"IOXIDE_CAPS: {text!r}" in ran.output
    assert "passed" not in ran.output
