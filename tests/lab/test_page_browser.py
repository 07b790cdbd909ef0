# SPDX-License-Identifier: MIT
"""report.html in a real Chromium: by mouse, by keyboard, in both themes, narrow and wide."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lab.report import page
from lab.report.page import shown
from tests.lab.browser_support import Shown, driver
from tests.lab.page_support import COMPLAINT, GOOD, HOSTILE, LOST, SPLAT, crafted

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]
__all__ = ["driver"]  # a fixture

MEASURE = """
const [text, done] = arguments, query = document.getElementById("query");
const began = performance.now();
query.value = text;
query.dispatchEvent(new Event("input"));
requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(
  () => done([performance.now() - began, document.getElementById("shown").textContent]))));
"""
"""Types into the filter, and tells how long it took until the page was painted again."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run on two kernels with a failure, a splat and a lost guest."""
    run = crafted(tmp_path_factory.mktemp("run"))
    page.write(run.directory / page.FILE, [page.read(run.directory)])
    return run.directory / page.FILE


@pytest.fixture
def browser(driver: webdriver.Chrome, file: Path) -> Iterator[Shown]:
    """That page; a word on the console fails the test."""
    browser = Shown(driver, file)
    browser.window(1280)
    yield browser
    assert [] == browser.complaints()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (HOSTILE, ["failed", "</script><script>alert(3)</script>", "Run it again", "tests.log"]),
        (SPLAT, ["splat", COMPLAINT, "Call Trace:", "kernel.log"]),
        (LOST, ["lost", "no verdict within 60 s", "waiting", "guest 1, at"]),
    ],
    ids=["failed", "splat", "lost"],
)
def test_two_clicks_lead_to_each_piece_of_evidence(
    browser: Shown, name: str, words: list[str]
) -> None:
    """From the first screen: one click opens the test on one kernel, another one on the other."""
    title = shown.line(name)
    (item,) = (
        one
        for one in browser.driver.find_elements(By.CSS_SELECTOR, "#bad .bad li")
        if title in one.text
    )
    item.find_elements(By.CSS_SELECTOR, "a")[0].click()
    told = browser.panel_of(name)
    assert "6.1.176" in told.splitlines()[1]
    for word in words:
        assert word in told
    browser.driver.find_elements(By.CSS_SELECTOR, "#panel .badge")[1].click()
    browser.until("document.querySelector('#panel p').textContent === '6.12.107'")
    assert words[1] in browser.panel_of(name)
    browser.find("#panel button").click()
    assert "" == browser.panel


def test_red_cell_of_the_table_opens_and_closes(browser: Shown) -> None:
    browser.find("#matrix td.f a").click()
    assert "lab test --kernel 6.1.176" in browser.panel_of(HOSTILE)
    assert browser.driver.current_url.endswith("#t-1-0")
    (marked,) = browser.driver.find_elements(By.CSS_SELECTOR, "#matrix a.here")
    assert "failed" == marked.text
    browser.press(Keys.ESCAPE)
    assert "" == browser.panel
    browser.find("#matrix td.f a").click()
    browser.panel_of(HOSTILE)


def test_hostile_page_runs_nothing_of_its_tests(browser: Shown) -> None:
    """Everything opened once: no dialog, no element and no request comes of a test's words."""
    for row in range(4):
        browser.open(f"#t-{row}-0")
        assert browser.panel
    assert 0 == browser.run("return document.querySelectorAll('img, iframe, #panel script').length")
    assert 2 == browser.run("return document.scripts.length")
    assert [] == browser.run(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )


def test_keyboard_alone_leads_to_the_evidence(browser: Shown) -> None:
    """From what is not good to what is not good, to the other kernel, and back to the table."""
    browser.press("n")
    assert "assert" not in browser.panel_of(HOSTILE).splitlines()[0]
    browser.press(Keys.ARROW_RIGHT)
    browser.until("document.querySelector('#panel p').textContent === '6.12.107'")
    browser.press("n")
    browser.panel_of(SPLAT)
    browser.press("p", "p")
    browser.until("location.hash === '#t-1-0'")
    browser.press(Keys.ESCAPE)
    assert "" == browser.panel
    assert "t-1-0" == browser.focused()[0]
    browser.press("/", "good", Keys.TAB)
    browser.until("document.getElementById('shown').textContent === '1 of 4'")
    # Into the table, which has one stop on the way of the tab key.
    for _ in range(12):
        browser.press(Keys.TAB)
        if browser.run("return document.activeElement.closest('#matrix') !== null"):
            break
    assert "tests/test_good.py" == browser.focused()[1]
    for key, cell in (
        (Keys.ARROW_DOWN, "t-0-0"),
        (Keys.ARROW_LEFT, ""),
        (Keys.ARROW_DOWN, "t-0-0"),
        (Keys.ARROW_RIGHT, "t-0-1"),
    ):
        browser.press(key)
        assert cell == browser.focused()[0]
    browser.press(Keys.ENTER)
    browser.panel_of(GOOD)
    browser.press(Keys.ESCAPE)
    assert "t-0-1" == browser.focused()[0]
    browser.press("?")
    assert browser.find("#keys").is_displayed()
    browser.press(Keys.ESCAPE)
    assert not browser.find("#keys").is_displayed()


def test_filter_takes_words_verdicts_kernels_and_output(browser: Shown) -> None:
    def rows() -> list[str]:
        return list(
            browser.run(
                "return [...document.querySelectorAll('tr.t')].filter((row) => "
                "row.getClientRects().length).map((row) => row.dataset.row)"
            )
        )

    def count(text: str) -> None:
        browser.until(f"document.getElementById('shown').textContent === '{text}'")

    assert ["0", "1", "2", "3"] == rows()
    query = browser.find("#query")
    query.send_keys("TEST_BAD 60")
    count("1 of 4")
    assert ["3"] == rows()
    query.send_keys(Keys.ESCAPE)
    count("4")
    query.send_keys("waiting")
    count("0 of 4")
    assert browser.find("#nothing").is_displayed()
    browser.find("#within").click()
    count("1 of 4")
    query.send_keys(Keys.ESCAPE)
    browser.find(".chip[data-letter=s]").click()
    count("1 of 4")
    assert ["2"] == rows()
    browser.find(".chip[data-letter=f]").click()
    count("2 of 4")
    browser.find("#differ").click()
    count("0 of 4")


def test_theme_follows_the_system_until_it_is_chosen(browser: Shown) -> None:
    def ground() -> str:
        return str(browser.run("return getComputedStyle(document.body).backgroundColor"))

    browser.run("localStorage.clear()")
    grounds = {}
    for system in ("light", "dark"):
        browser.window(1280, system)
        browser.open()
        grounds[system] = ground()
    assert grounds["light"] != grounds["dark"]
    browser.find("#theme").click()
    assert ("Theme: light", grounds["light"]) == (browser.find("#theme").text, ground())
    browser.open()
    assert grounds["light"] == ground()
    browser.press("t")
    assert ("Theme: dark", grounds["dark"]) == (browser.find("#theme").text, ground())
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280, 2000])
def test_page_is_accessible_and_fits(browser: Shown, theme: str, width: int) -> None:
    """axe finds nothing, with and without details; nothing but tables scrolls sideways."""
    browser.window(width, theme)
    for fragment in ("", "#t-1-0") if width != 1280 else ("#p-0-0", "#k-0"):
        browser.open(fragment)
        assert bool(fragment) == bool(browser.panel)
        assert [] == browser.violations(), fragment
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_filter_of_ten_thousand_cells_answers(
    driver: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How long it took is printed, for who reads it on a quiet machine: it is to be 200 ms."""
    names = [HOSTILE] + [
        f"tests/test_{n % 20}.py::test_{'reads' if n % 3 else 'writes'}[{n}]" for n in range(999)
    ]
    run = crafted(tmp_path, kernels=[f"6.{n}" for n in range(10)], names=names)
    began = time.monotonic()
    page.write(run.directory / page.FILE, [page.read(run.directory)])
    made = time.monotonic() - began
    big = Shown(driver, run.directory / page.FILE)
    big.window(1280)
    took = {}
    for text, left in (("writes", 333), ("hostile", 1), ("nothing is so", 0), ("test", 1000)):
        milliseconds, told = driver.execute_async_script(MEASURE, text)
        assert f"{left} of 1000" == told
        took[text] = round(milliseconds)
    with capsys.disabled():
        print(f"\npage of 1,000 x 10 made in {made:.1f} s; filters painted after, ms: {took}")
    assert [] == big.complaints()
