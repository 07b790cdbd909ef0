# SPDX-License-Identifier: MIT
"""The page of the peers' benchmark: what is on it, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from bench import peers_html
from bench.errors import Void
from tests.lab.browser_support import Shown, driver
from tests.lab.suite_support import REPOSITORY

pytestmark = pytest.mark.lab
__all__ = ["driver"]  # a fixture

HOSTILE = "uvloop <script>alert(1)</script>\x1b[31m\u202e"


def cell(server: str, scene: str, placement: str, rate: float) -> dict[str, Any]:
    return {
        "server": server,
        "scene": scene,
        "placement": placement,
        "rate": [rate, rate * 2, rate * 4],
        "cpu_us": [5.0, 5.5, 6.0],
        "p50_us": [600, 610, 620],
        "p99_us": [900, 1000, 2000],
    }


def results(**more: Any) -> dict[str, Any]:
    cells = [
        cell(server, scene, placement, rate)
        for scene in ("64 connections", "1 connection")
        for server, rate in (("ioxide handler", 1000.0), (HOSTILE, 500.0))
        for placement in ("one core", "a core each")
    ]
    whole = {"version": 1, "date": "2026-01-01", "machine": "2 x <b>it</b>", "rounds": 3}
    return whole | {"cells": cells, "absent": {"rloop": "nothing of it installs"}} | more


def data_of(text: str) -> dict[str, Any]:
    """What the page's script has."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_each_cell_has_its_median_and_its_rounds() -> None:
    data = data_of(peers_html.render(results()))
    assert "64 connections: ioxide handler" == data["tests"][0]
    assert ["xxxxxxxx"] * 4 == data["verdicts"]
    assert "2,000 (median)" == data["cells"]["t-0-0"]["v"]
    assert "1,000 to 4,000" == data["cells"]["t-0-0"]["w"]
    assert "1,000\n2,000\n4,000" == data["cells"]["t-0-0"]["d"][0][1]
    assert "5.50 (median)" == data["cells"]["t-3-5"]["v"]


def test_plot_is_to_scale() -> None:
    """The greatest of all rounds is the whole width; the line spans least and greatest."""
    text = peers_html.render(results())
    assert '<rect width="50.0%" height="100%"/>' in text
    assert '<line class="whisker" x1="25.0%" x2="100.0%"' in text
    assert '<rect width="25.0%" height="100%"/>' in text
    assert 4 == text.count('<div class="card">')


def test_hostile_words_are_text() -> None:
    text = peers_html.render(results())
    assert 2 == text.count("<script")
    assert "<b>" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no result of make bench-peers: JSONDecodeError"),
        ("[]", "is no result of make bench-peers: TypeError"),
        (json.dumps(results(version=2)), "is of version 2; this program reads 1"),
        (json.dumps(results(cells=[{}])), "is no result of make bench-peers: KeyError('server')"),
        (
            json.dumps(results(cells=[cell("a", "b", "c", 1.0) | {"rate": ["7"]}])),
            "rate of cell 0 is no list of measurements",
        ),
        (
            json.dumps(results(cells=[cell("a", "b", "c", 1.0) | {"server": 7}])),
            "server of cell 0 is 7, and no text",
        ),
    ],
)
def test_what_is_no_result_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "peers.json").write_text(text)
    with pytest.raises(Void, match=re.escape(why)):
        peers_html.read(tmp_path / "peers.json")


def test_command_writes_the_page(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.peers_html", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )

    file, given = tmp_path / "peers.html", tmp_path / "peers.json"
    given.write_text(json.dumps(results()))
    done = run(str(file), "--results", str(given))
    assert (0, f"{file}\n") == (done.returncode, done.stdout), done.stderr
    assert 4 == len(data_of(file.read_text())["tests"])
    done = run(str(tmp_path / "no/such"), "--results", str(given))
    assert 3 == done.returncode
    assert "no/such cannot be written: No such file or directory" in done.stderr
    done = run(str(file), "--results", str(tmp_path / "none.json"))
    assert 3 == done.returncode
    assert "none.json is no result of make bench-peers: FileNotFoundError" in done.stderr


# -- in a browser ----------------------------------------------------------------------------


@pytest.fixture
def browser(driver: webdriver.Chrome, tmp_path: Path) -> Shown:
    (tmp_path / "peers.html").write_text(peers_html.render(results()))
    shown = Shown(driver, tmp_path / "peers.html")
    shown.window(1280)
    return shown


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bar_and_cell_lead_to_the_rounds(browser: Shown) -> None:
    browser.find("#plots li a").click()
    assert "1,000 to 4,000" in browser.panel_of("64 connections: ioxide handler")
    browser.press(Keys.ARROW_RIGHT)
    browser.until("location.hash === '#t-0-1'")
    assert "5.50 (median)" in browser.panel
    browser.press(Keys.ESCAPE, "/", "64 HANDLER")
    browser.until("document.getElementById('shown').textContent === '1 of 4'")
    browser.press(Keys.ESCAPE)
    browser.find("#matrix tbody:last-child td a").click()
    browser.panel_of("1 connection: ioxide handler")
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
