# SPDX-License-Identifier: MIT
"""The contract with a real 6.12 guest: once as itself, where it surprises, and once as 6.6."""

from __future__ import annotations

import shutil

import pytest

from tests.lab.suite_support import REPOSITORY, Little

# Each boots a guest, which takes seconds, and minutes on a busy machine.
pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def real(little: Little) -> Little:
    """A repository with the real ioxide and the real contract."""
    shutil.rmtree(little.root / "ioxide")
    shutil.copytree(REPOSITORY / "ioxide", little.root / "ioxide")
    shutil.copy(REPOSITORY / "tests/kernels/expected.toml", little.root / "tests/kernels")
    return little


def test_one_edited_cell_surprises(real: Little) -> None:
    """A real 6.12 that is denied BUNDLE is red, and the line that mends it is printed."""
    path = real.root / "tests/kernels/expected.toml"
    there, wrong = '"6.12".BUNDLE = "yes, measured"', '"6.12".BUNDLE = "no, measured"'
    text = path.read_text()
    assert 1 == text.count(there)
    path.write_text(text.replace(there, wrong))
    real.tests("def test_plain(): pass\n")

    ran = real.run("lab", "test", "--kernel", "6.12")

    assert ran.code == 1, ran.output
    assert {"test_plain": "passed"} == ran.verdicts
    assert f"write in tests/kernels/expected.toml: {there}" in ran.output
    assert ran.last_line.startswith("lab: exit 1 (disproved): capability BUNDLE surprise")


def test_6_12_plays_6_6(real: Little) -> None:
    """In a real 6.12 that plays 6.6, probe, gate and reactor all do without the four."""
    real.tests("""
import ioxide
def test_probe(lab_identity):
    assert lab_identity.release.startswith("6.12.")
    report = ioxide.probe()
    masked = {finding.capability for finding in report.findings if finding.note == "masked"}
    assert {"BUNDLE", "INC", "INC_BUNDLE", "NAPI", "MIN_WAIT", "NO_IOWAIT"} <= masked
    # 6.12 itself has all but what no kernel of a distribution has.
    assert {f.capability for f in report.findings if not f.observed} == masked | {"FAIL_NTH"}
def test_reactor():
    with pytest.raises(ioxide.UnsupportedError, match="takes away INC"):
        ioxide.Driver(ioxide.ServerConfig(port=0, incremental=ioxide.IncrementalConfig(
            max_connections=8)))
@pytest.mark.needs("MIN_WAIT")
def test_min_wait(): assert False
@pytest.mark.needs("NO_SQARRAY")
def test_no_sqarray(): pass
""")

    ran = real.run("lab", "test", "--kernel", "6.12", "--as", "6.6")

    assert ran.code == 0, ran.output
    assert {
        "test_probe": "passed",
        "test_reactor": "passed",
        "test_min_wait": "skipped",
        "test_no_sqarray": "passed",
    } == ran.verdicts
    assert ran.results is not None
    assert "6.12 as 6.6" == ran.results["cell"]
    assert [] == ran.results["contract"]["surprises"]
