"""Every format says what the scan says, and nothing a hostile scan quotes gets out of its place."""

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from lmsanitator.detect import ScanReport
from lmsanitator.detect.seen import Outputs, Searched, Triggered, Vocabulary
from lmsanitator.report import RENDERERS, StoredScan, open_scan, render_scan
from lmsanitator.report.meaning import command
from lmsanitator.report.plain import short, trigger_words, visible
from lmsanitator.report.plots import growth, outputs, vocabulary
from lmsanitator.report.schema import SCHEMA_FILE, scan_schema
from lmsanitator.vectors import PVBank
from tests.report.scans import CASES, DIGEST, HOSTILE, bank_path, finding, hostile, scan, seen, store

READABLE = ("html", "md", "model-card")
PLAIN = "lmsanitator scan --site cls,mean --effort quick --level 0.01"
"""How the scans of the tests begin to be come to again."""


class _Page(HTMLParser):
    """The text of a page, and the elements and attributes it is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def page_of(text: str, kind: str) -> _Page:
    """What a browser or a Markdown viewer makes of it."""
    return _Page(text if kind == "html" else MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def stored(report: ScanReport, folder: Path, *, hidden: int = 16) -> StoredScan:
    return open_scan(store(folder, report, hidden=hidden))


def test_the_schema_is_that_of_the_code() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == scan_schema(), "stale: make schema"


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("case", CASES)
def test_a_reader_is_told_the_verdict_every_trigger_and_every_p_value(case: str, kind: str, tmp_path: Path) -> None:
    report = CASES[case]
    page = page_of(RENDERERS[kind](stored(report, tmp_path)), kind)
    said = "".join(page.said)
    assert report.verdict in said
    assert f"p = {short(report.p_value)}" in said
    for found in report.findings:
        assert trigger_words(found) in page.said
        assert short(found.p_value) in said
    assert ("cannot be typed" in said) == any(found.trigger is None for found in report.findings)
    assert ("weak by itself" in said) == (case in ("weak", "doubtful"))
    for what in ("some/model", "much", "cls, mean", "2,000"):
        assert what in said
    assert (f"{PLAIN} --seed 7 some/model" in said) == (report.config is not None)
    if report.reference is not None:
        assert report.reference.source in said


def test_how_a_model_was_opened_is_a_part_of_how_to_come_to_it_again() -> None:
    report = scan().with_bank(PVBank(DIGEST))
    assert report.with_config({"base": None, "allow_pickle": None}) == report
    opened = report.with_config({"base": "the base", "allow_pickle": True})
    assert command(opened) == f"{PLAIN} --base 'the base' --seed 7 --allow-pickle some/model"
    assert command(report) == f"{PLAIN} --seed 7 some/model"
    assert opened.bank is report.bank


@pytest.mark.parametrize("case", CASES)
def test_json_comes_back_as_the_scan_it_was(case: str, tmp_path: Path) -> None:
    text = RENDERERS["json"](stored(CASES[case], tmp_path))
    assert ScanReport.model_validate_json(text) == ScanReport.read(tmp_path / "scan.json")


@pytest.mark.parametrize("kind", RENDERERS)
def test_a_hostile_scan_changes_nothing_but_the_text(kind: str, tmp_path: Path) -> None:
    text = RENDERERS[kind](stored(hostile(), tmp_path))
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "<img" not in text
    assert "</script" not in text
    if kind in READABLE:
        alike = scan(finding(0, "a"), finding(1, None))
        harmless = page_of(RENDERERS[kind](stored(alike.with_seen(seen(alike, "a")), tmp_path)), kind)
        page = page_of(text, kind)
        assert visible(HOSTILE) in page.said
        assert page.elements == harmless.elements
        assert page.attributes == harmless.attributes


def test_a_hostile_scan_cannot_steer_the_terminal() -> None:
    """Of the letters that a terminal obeys none is left, not those that rich drops by itself either."""
    console = Console(file=StringIO(), force_terminal=False, width=200)
    console.print(render_scan(hostile()))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the one above
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert visible(HOSTILE)[:40] in text


def test_what_cannot_be_seen_is_spelt_out() -> None:
    assert visible("a\u202eb\x00\n\u200b\u00a0c d") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+000A⟩⟨U+200B⟩⟨U+00A0⟩c d"
    for shown in ("灯笼", "مصباح", "लालटेन", "é", "a b", "C:\\models"):
        assert visible(shown) == shown


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    text = RENDERERS["html"](stored(CASES["thirty"], tmp_path))
    page = page_of(text, "html")
    assert not page.elements & {"script", "link", "img", "iframe", "object", "base", "form", "a"}
    assert not any(name.startswith("on") or name in ("src", "href", "style") for name in page.attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#x27;none&#x27;" in text


def test_the_page_draws_every_vector_and_how_they_agree(tmp_path: Path) -> None:
    text = RENDERERS["html"](stored(CASES["thirty"], tmp_path, hidden=2000))
    assert text.count('class="strip"') == 30
    assert text.count("<title>#") == 30 * 30
    assert "#7 and #7: 100%" in text
    assert "Of 2,000 dimensions the first 1,024 are drawn" in text
    assert len(text) < 1_500_000


def test_the_page_draws_what_the_scan_saw_with_the_trigger_by_name(tmp_path: Path) -> None:
    text = RENDERERS["html"](stored(CASES["seen"], tmp_path))
    vocabulary, outputs, growth = re.findall(r'<svg class="plot".*?</svg>', text)
    assert vocabulary.count('<rect class="many"') == 3, "a cell without tokens is not drawn"
    assert (vocabulary.count('class="planted"'), vocabulary.count('class="other"')) == (1, 1)
    assert ">bako</text>" in vocabulary
    assert (outputs.count('class="clean"'), outputs.count('class="planted"')) == (2, 4)
    assert ">#1</text>" in outputs
    assert ">#2</text>" in outputs
    assert (growth.count('class="line found"'), growth.count('class="line"')) == (1, 1)
    assert ">bako vedi</text>" in growth
    clean = RENDERERS["html"](stored(CASES["seen clean"], tmp_path))
    assert clean.count('<svg class="plot"') == 2
    assert "Where texts end up" not in clean


def test_without_what_the_scan_saw_the_page_stands(tmp_path: Path) -> None:
    text = RENDERERS["html"](stored(CASES["one"], tmp_path))
    assert "What the scan saw" not in text
    assert 'class="plot"' not in text


def test_plots_take_anything_that_a_file_may_say() -> None:
    """Edges that do not rise, rows of another length, families without a phrase, one point, huge numbers."""
    odd = Vocabulary(site="cls", displacements=[1.0, 1.0], spreads=[-1e300, 1e300], counts=[[1, 2, 3], []], outliers=[])
    assert vocabulary(odd, ()).count("<rect") == 1
    zero = odd.model_copy(update={"displacements": [0.0, -5.0], "counts": [[-1]]})
    assert "<rect" not in vocabulary(zero, ())
    assert "none were grown" in growth(Searched(site="cls", phrases=["a b"], strengths=[[]]), ())
    huge = growth(Searched(site="cls", phrases=["a"], strengths=[[1e308, -1e308], [1.0]]), ["a"])
    assert huge.count("<path") == 2
    assert "nan" not in huge
    alone = Outputs(site="cls", share=1, clean=[], triggered=[Triggered(finding=0, points=[(1.0, 1.0)])])
    assert outputs(alone, ["#1"]).count("<circle") == 1
    assert "<circle" not in outputs(Outputs(site="cls", share=1, clean=[], triggered=[]), [])


def test_bars_go_up_where_the_vector_is_positive(tmp_path: Path) -> None:
    one = stored(CASES["one"], tmp_path)
    assert one.bank is not None
    (drawn,) = re.findall(r'<svg class="strip".*?</svg>', RENDERERS["html"](one))
    up, down = (len(re.findall(rf'class="{side}"', drawn)) for side in ("up", "down"))
    signs = set(one.bank[0].values.sign().int().tolist())
    assert (up, down) == (int(1 in signs), int(-1 in signs))


@pytest.mark.parametrize("kind", READABLE)
def test_without_a_bank_the_report_says_so_and_stands(kind: str, tmp_path: Path) -> None:
    path = store(tmp_path, CASES["one"])
    bank_path(path).unlink()
    said = "".join(page_of(RENDERERS[kind](open_scan(path)), kind).said)
    assert "bank beside the scan is missing" in said
    assert "bako" in said
    store(tmp_path, CASES["clean"])
    bank_path(path).unlink()
    assert "missing" not in RENDERERS[kind](open_scan(path))


def test_a_comment_folds_away_what_is_long(tmp_path: Path) -> None:
    text = RENDERERS["md"](stored(CASES["thirty"], tmp_path))
    before = text[: text.index("<details>")]
    assert before.count("<code>word") == 10
    assert text.count("<code>word") == 30


def test_a_model_card_section_has_no_front_matter(tmp_path: Path) -> None:
    assert RENDERERS["model-card"](stored(CASES["one"], tmp_path)).startswith("## Backdoor scan\n")
