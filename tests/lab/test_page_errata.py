# SPDX-License-Identifier: MIT
"""The page of the errata: what is on it, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from lab.errors import LabError
from lab.facts.errata import Finding, Measured, Seen
from lab.report import page
from lab.rules.errata import Erratum
from tests.lab.browser_support import Shown, driver
from tests.lab.suite_support import REPOSITORY, Little

pytestmark = pytest.mark.lab
__all__ = ["driver"]  # a fixture

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e'\"&"
EVIDENCE = "</script><img src=x onerror=alert(2)> \x00 res = 7"


def erratum(id: str, title: str, links: tuple[str, ...] = ()) -> Erratum:
    return Erratum(
        id=id,
        title=title,
        capability="INC",
        reproducer=f"tests/errata/test_it.py::test_{id[-3:]}",
        known_bad=("6.12.2",),
        known_good=("6.12.10",),
        links=links,
        reported="",
    )


def measured(upstream: str, *seen: Seen | None, evidence: str = "", package: str = "") -> Measured:
    findings = {f"AN-ERR-00{n}": Finding(one, evidence) for n, one in enumerate(seen, 1)}
    return Measured(upstream, package or f"{upstream}-1", f"{upstream}-amd64", findings)


def rendered() -> str:
    errata = (
        erratum("AN-ERR-001", HOSTILE, ("https://example.org/1", "javascript:alert(3)")),
        erratum("AN-ERR-002", "Bytes are out of order"),
    )
    rows = (
        measured("6.12.2", Seen.PRESENT, Seen.ABSENT, evidence=EVIDENCE),
        measured("6.12.10", Seen.ABSENT, None),
        measured("6.1.170", Seen.NOT_APPLICABLE, Seen.FAILED, package="local-0123"),
    )
    return page.render_errata(errata, rows)


def data_of(text: str) -> dict[str, Any]:
    """What the page's script has."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_each_release_has_what_was_seen_of_each_erratum() -> None:
    """Newest first, by numbers and not by letters; each cell has its words and the line that asks
    again, but for a kernel that no source has."""
    data = data_of(rendered())
    assert [
        "6.12.10 (6.12.10-amd64)",
        "6.12.2 (6.12.2-amd64)",
        "6.1.170 (6.1.170-amd64)",
    ] == data["tests"]
    assert ["px", "fp", "kl"] == data["verdicts"]
    present = data["cells"]["t-1-0"]
    assert "present" == present["v"]
    assert "known bad" == present["w"]
    assert "res = 7" in present["d"][0][1]
    assert present["r"].endswith("test --kernel 6.12.2 tests/errata/test_it.py::test_001")
    assert "known good; its words were not kept here" in data["cells"]["t-0-0"]["w"]
    assert "r" not in data["cells"]["t-2-0"]
    assert ["1 of 2 releases"] == [v for k, v in data["kernels"][0]["facts"] if k == "bad on"]


def test_hostile_words_are_text() -> None:
    """No tag, no control character and no address that is none gets into the page."""
    text = rendered()
    assert 2 == text.count("<script")
    assert "<img" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert ["https://example.org/1"] == data_of(text)["kernels"][0]["links"]


def test_page_of_the_recorded_table(little: Little) -> None:
    """It boots nothing and takes the words of what was measured here; what cannot be meant, read
    or written is one sentence."""
    little.write("docs/errata.json", (REPOSITORY / "docs/errata.json").read_text())
    file = little.root / "errata.html"
    before = (little.root / "pyproject.toml").read_text()
    ran = little.run("lab", "errata", "--page", str(file))
    assert 2 == ran.code, ran.output
    assert "--page shows the table of [tool.lab.errata], and that names none" in ran.output
    (little.root / "pyproject.toml").write_text(
        before.replace("[tool.lab.errata]\n", '[tool.lab.errata]\ntable = "docs/errata.json"\n')
    )
    ran = little.run("lab", "errata", "--page", str(file))
    assert 0 == ran.code, ran.output
    many = len(json.loads((REPOSITORY / "docs/errata.json").read_text())["releases"])
    assert f"lab: exit 0 (proved): {many} releases are on the page" in ran.output
    assert many == len(data_of(file.read_text())["tests"]) > 70
    ran = little.run("lab", "errata", "--page", str(file), "--kernel", "6.12")
    assert 2 == ran.code
    assert "--page measures nothing, so --kernel means nothing beside it" in ran.output
    ran = little.run("lab", "errata", "--page", str(little.root / "no/such"))
    assert 3 == ran.code
    assert "no/such cannot be written: No such file or directory" in ran.output
    little.write("docs/errata.json", "{")
    ran = little.run("lab", "errata", "--page", str(file))
    assert 3 == ran.code
    assert "errata.json is no table of errata" in ran.output


def test_words_come_of_what_was_measured_here(tmp_path: Path) -> None:
    """Only where they are about the same finding by the program of now."""
    from lab.errata.state import State

    row = measured("6.12.2", Seen.PRESENT, Seen.ABSENT)
    finding = {"seen": "present", "evidence": "seen here", "splats": [], "program": "a"}
    entry = {"findings": {"AN-ERR-001": finding, "AN-ERR-002": finding}}
    (tmp_path / "m.json").write_text(json.dumps({"releases": {"6.12.2-1 6.12.2-amd64": entry}}))
    now = State(tmp_path / "m.json", {"AN-ERR-001": "a", "AN-ERR-002": "a"}).with_words(row)
    assert ["seen here", ""] == [one.evidence for one in now.findings.values()]
    later = State(tmp_path / "m.json", {"AN-ERR-001": "b"}).with_words(row)
    assert ["", ""] == [one.evidence for one in later.findings.values()]
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(LabError, match="is no record of a sweep"):
        State(tmp_path / "m.json", {})


# -- in a browser ----------------------------------------------------------------------------


@pytest.fixture
def browser(driver: webdriver.Chrome, tmp_path: Path) -> Shown:
    (tmp_path / "errata.html").write_text(rendered())
    shown = Shown(driver, tmp_path / "errata.html")
    shown.window(1280)
    return shown


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_clicks_and_keys_lead_to_what_was_seen(browser: Shown) -> None:
    """By the mouse: the erratum, then its table. By keys: the next one that is present."""
    browser.find("#errata a").click()
    browser.until("!document.getElementById('panel').hidden")
    assert "bad on 1 of 2 releases" in browser.panel.replace("\n", " ")
    assert "6.12.2 (6.12.2-amd64)" in browser.panel
    browser.press(Keys.ESCAPE)
    browser.find("#matrix td.f a").click()
    assert "res = 7" in browser.panel_of("6.12.2 (6.12.2-amd64)")
    browser.press(Keys.ARROW_RIGHT)
    browser.until("location.hash === '#t-1-1'")
    browser.press(Keys.ESCAPE)
    browser.press("n")
    browser.until("location.hash === '#t-1-0'")
    browser.press(Keys.ESCAPE, "/", "6.1.170")
    browser.until("document.getElementById('shown').textContent === '1 of 3'")
    browser.press(Keys.ESCAPE)
    browser.find("#query").send_keys("onerror")
    browser.until("document.getElementById('shown').textContent === '0 of 3'")
    browser.find("#within").click()
    browser.until("document.getElementById('shown').textContent === '1 of 3'")
    assert 0 == browser.run("return document.querySelectorAll('img, #panel script').length")
    assert [] == browser.complaints()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 2000])
def test_page_is_accessible_and_fits(browser: Shown, theme: str, width: int) -> None:
    browser.window(width, theme)
    for fragment in ("", "#t-1-0", "#k-0"):
        browser.open(fragment)
        assert bool(fragment) == bool(browser.panel)
        assert [] == browser.violations(), fragment
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert [] == browser.complaints()
