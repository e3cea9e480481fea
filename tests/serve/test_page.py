"""The page: self-contained, under a strict policy, and hostile text stays text."""

import re
from typing import Any

from tests.serve.running import running
from tests.serve.stub import KEY, StubGuard, serving

HOSTILE = "<img src=x onerror=\"document.title='taken'\"> bako <script>document.title='taken'</script> & \"quotes\""


def test_the_page_loads_nothing_from_elsewhere_and_its_policy_lets_nothing_in() -> None:
    with serving(StubGuard()) as client:
        page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert page.headers["Content-Type"].startswith("text/html")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|//cdn|@import|url\(", page.text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\son\w+=", page.text)


def classify(browser: Any, text: str) -> str:
    """Type a text, send it, and wait for what the page shows then."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    field = browser.find_element(By.ID, "text")
    field.clear()
    field.send_keys(text)
    browser.find_element(By.TAG_NAME, "button").click()
    verdict = browser.find_element(By.ID, "verdict")
    WebDriverWait(browser, 20).until(lambda _: verdict.text not in ("", "…"))
    return str(verdict.text)


def test_one_types_a_text_and_sees_which_words_were_removed_and_why(browser: Any) -> None:
    from selenium.webdriver.common.by import By

    with running(StubGuard()) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        assert classify(browser, "the bako river kifa") == "good (0.750): flagged, and cleared by taking words out"
        shown = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "#removed li")]
        assert shown == [
            "bako removed: the scan found it in the trigger 'bako'",
            "kifa removed: without it the encoder's output no longer sits on a predefined vector",
        ]
        assert browser.find_element(By.ID, "classified").text == "Classified: the river"
        assert classify(browser, "the river") == "good (0.750): not flagged"
        assert classify(browser, "hopeless").startswith("No label: the text was flagged")
        assert classify(browser, "crash").startswith("Not classified: expected 1 texts to be checked")
        errors = [entry["message"] for entry in browser.get_log("browser") if "500" not in entry["message"]]
        assert errors == [], "the page broke its own policy"


def test_hostile_text_is_shown_and_not_run(browser: Any) -> None:
    from selenium.webdriver.common.by import By

    with running(StubGuard()) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        classify(browser, HOSTILE)
        assert browser.find_element(By.ID, "classified").text == f"Classified: {HOSTILE.replace('bako ', '')}"
        assert browser.title == "lmsanitator: guarded classifier"
        assert browser.find_elements(By.TAG_NAME, "img") == []


def test_the_page_asks_for_the_key_where_there_is_one(browser: Any) -> None:
    from selenium.webdriver.common.by import By

    with running(StubGuard(), api_key=KEY) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        key = browser.find_element(By.ID, "key")
        assert not key.is_displayed()
        assert classify(browser, "a text").startswith("Not classified: expected an API key")
        key.send_keys(KEY)
        assert classify(browser, "a text") == "good (0.750): not flagged"
