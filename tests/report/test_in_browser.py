"""The page in a browser: nothing is loaded, nothing complains, and it fits a phone and a screen."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmsanitator.report import RENDERERS, open_scan
from tests.report.scans import CASES, hostile, store

PHONE, DESKTOP = 390, 1280
PAGES = {**CASES, "hostile": hostile()}


@pytest.mark.parametrize("case", ["clean", "thirty", "scripts", "seen", "seen clean", "hostile"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_fits_and_loads_nothing(browser: Any, case: str, width: int, tmp_path: Path) -> None:
    page = tmp_path / "scan.html"
    page.write_text(RENDERERS["html"](open_scan(store(tmp_path, PAGES[case]))), encoding="utf-8")
    browser.get_log("performance")  # what was before
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE},
    )
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"}
    assert asked == {page.as_uri()}
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script("return window.innerWidth") == width
    for drawing in browser.find_elements("css selector", "svg"):
        assert 0 < drawing.size["width"] <= width
        assert drawing.size["height"] > 0
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})  # others use this browser too
