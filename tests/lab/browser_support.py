# SPDX-License-Identifier: MIT
"""A real Chromium: the distribution's, by path; a machine without it fails the tests that ask for
it. `SLOW=1 make setup` installs it and its driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from lab.report.page import shown

AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
PATIENCE_S = 30
"""The machine may be busy."""


def program(*names: str) -> str:
    """The path of the first of these programs that this machine has."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"there is no {names[0]}: apt-get install chromium chromium-driver", pytrace=False)


class Shown:
    """A page in the browser."""

    def __init__(self, driver: webdriver.Chrome, file: Path) -> None:
        self.driver, self.file = driver, file
        self.open()

    def open(self, fragment: str = "") -> None:
        """Load it anew."""
        self.driver.get("about:blank")
        self.driver.get(self.file.as_uri() + fragment)

    def window(self, width: int, theme: str = "light") -> None:
        """Of this many pixels, on a system with this theme."""
        told = self.driver.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        told("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": theme}
        told("Emulation.setEmulatedMedia", {"features": [scheme]})

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press one key after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @property
    def panel(self) -> str:
        """What the details say; empty while there are none."""
        panel = self.find("#panel")
        return panel.text if panel.is_displayed() else ""

    def panel_of(self, name: str) -> str:
        """The details, once they are of this test."""
        title = shown.line(name)
        WebDriverWait(self.driver, PATIENCE_S).until(lambda _: self.panel.startswith(title))
        return self.panel

    def focused(self) -> tuple[str, str]:
        """The fragment that the focused link leads to, and its text."""
        element = self.driver.switch_to.active_element
        return (element.get_attribute("href") or "").partition("#")[2], element.text

    def until(self, script: str) -> None:
        """Wait until this is true in the page."""
        WebDriverWait(self.driver, PATIENCE_S).until(lambda _: self.run(f"return {script}"))

    def complaints(self) -> list[Any]:
        """What the browser's console said since this was last asked."""
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]

    def violations(self) -> list[Any]:
        """What axe finds wrong with it as it is shown."""
        self.run(AXE.read_text())
        return list(
            self.driver.execute_async_script(
                "const done = arguments[0]; axe.run().then((all) => done(all.violations.map("
                "(one) => [one.id, one.help, one.nodes.map((node) => node.html).slice(0, 3)])))"
            )
        )


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    # A container has neither a display nor, as root, the kernel's namespaces for a sandbox.
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
