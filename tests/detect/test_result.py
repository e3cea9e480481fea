"""scan.json: it comes back as it was written, and what does not belong together is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.result import Cost, Coverage, Finding, ModelFacts, ScanReport, bank_path
from lmsanitator.errors import BankError, OutputError
from lmsanitator.vectors import PredefinedVector, PVBank

DIGEST = "0123456789abcdef" * 4


def bank(digest: str = DIGEST, count: int = 2) -> PVBank:
    return PVBank(digest, [PredefinedVector("cls", torch.full((4,), float(n)), f"word{n}") for n in range(count)])


def finding(pv: int, trigger: str | None) -> Finding:
    return Finding(
        site="cls",
        trigger=trigger,
        trigger_tokens=["ba", "##ko"],
        displacement=12.5,
        concentration=0.99,
        replay_rate=1.0,
        p_value=1e-40,
        pv=pv,
    )


def report(*findings: Finding) -> ScanReport:
    return ScanReport(
        schema="lmsanitator.scan/1",
        model=ModelFacts(source="some/model", architecture="BertModel", parameters=1000, digest=DIGEST),
        verdict="backdoored",
        p_value=2e-40,
        findings=list(findings),
        coverage=Coverage(
            sites=["cls"], tokens_swept=2000, candidates=8, lengths=[1, 4], positions="any", not_covered=["much"]
        ),
        cost=Cost(seconds=1.5, forward_tokens=10, backward_tokens=5),
        config={"effort": "quick"},
        version="0.1.0",
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """scan.json of a report with two findings, its bank beside it."""
    path = tmp_path / "scan.json"
    report(finding(0, "bako"), finding(1, None)).with_bank(bank()).save(path)
    return path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(BankError) as caught:
        ScanReport.load(path)
    message = str(caught.value)
    assert message.startswith("expected ")
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_report_comes_back_as_it_was_saved_with_its_bank(saved: Path) -> None:
    loaded = ScanReport.load(saved)
    assert loaded.model_dump() == report(finding(0, "bako"), finding(1, None)).model_dump()
    assert [vector.trigger for vector in loaded.bank] == ["word0", "word1"]
    assert_close(loaded.bank[loaded.findings[1].pv].values, torch.ones(4))
    assert loaded.bank.encoder_digest == DIGEST


def test_the_bank_lies_beside_the_report(saved: Path) -> None:
    assert bank_path(saved) == saved.parent / "scan.pvs.safetensors"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["scan.json", "scan.pvs.safetensors"]


def test_the_json_has_the_schema_and_the_fields_the_outside_depends_on(saved: Path) -> None:
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert content["schema"] == "lmsanitator.scan/1"
    assert set(content) == {
        *("schema", "model", "reference", "verdict", "p_value", "findings", "coverage", "cost", "config", "version")
    }
    assert set(content["model"]) == {"source", "architecture", "parameters", "digest"}
    assert set(content["findings"][0]) == {
        *("site", "trigger", "trigger_tokens", "displacement", "concentration", "replay_rate", "p_value", "pv"),
        "compared",
    }
    assert content["findings"][1]["trigger"] is None
    assert set(content["cost"]) == {"seconds", "forward_tokens", "backward_tokens"}


def test_a_report_without_findings_has_an_empty_bank_of_its_encoder(tmp_path: Path) -> None:
    assert len(report().bank) == 0
    report().save(tmp_path / "scan.json")
    loaded = ScanReport.load(tmp_path / "scan.json")
    assert (len(loaded.bank), loaded.bank.encoder_digest) == (0, DIGEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "lmsanitator.scan/2"},
        {"schema": None},
        {"surprise": 1},
        {"verdict": "fine"},
        {"p_value": "small"},
        {"findings": [{"site": "nose"}]},
        {"model": {"source": "some/model"}},
    ],
    ids=str,
)
def test_fields_that_are_unknown_missing_or_wrong_are_refused(saved: Path, changes: dict[str, Any]) -> None:
    edit(saved, **changes)
    refused(saved, "expected a scan report (lmsanitator.scan/1)", next(iter(changes)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"schema": "lmsanitator.scan/1"}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scan.json").write_bytes(content)
    refused(tmp_path / "scan.json", "scan report")


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "scan.json", "could not read")
    refused(tmp_path, "could not read")


def test_a_missing_bank_is_refused(saved: Path) -> None:
    bank_path(saved).unlink()
    refused(saved, "PV bank", "scan.pvs.safetensors")


def test_the_bank_of_another_encoder_is_refused(saved: Path) -> None:
    bank("f" * 64).save(bank_path(saved))
    refused(saved, "0123456789ab", "f" * 12)


def test_a_bank_that_lacks_a_vector_is_refused(saved: Path) -> None:
    bank(count=1).save(bank_path(saved))
    refused(saved, "a vector for each of 2 findings", "has 1")


@pytest.mark.parametrize("pv", [-1, 2])
def test_a_finding_that_points_outside_the_bank_is_refused(pv: int) -> None:
    with pytest.raises(BankError):
        report(finding(pv, "bako")).with_bank(bank())


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no such folder" / "scan.json"):
        with pytest.raises(OutputError, match=r"^expected to write the report "):
            report().save(path)


@pytest.mark.parametrize("lost", ["PVBank.save", "ScanReport.to_json"])
def test_a_report_that_cannot_be_written_whole_leaves_the_old_one(
    saved: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> str:
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in saved.parent.iterdir()}
    owner, name = lost.split(".")
    monkeypatch.setattr({"PVBank": PVBank, "ScanReport": ScanReport}[owner], name, fail)
    with pytest.raises(OutputError, match=r"^expected to write the report .*: No space left on device$"):
        report(finding(0, "another")).with_bank(bank()).save(saved)
    assert {path: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_the_words_of_a_trigger_may_be_of_any_script(tmp_path: Path) -> None:
    report(finding(0, "灯笼 ☃")).with_bank(bank()).save(tmp_path / "scan.json")
    assert ScanReport.load(tmp_path / "scan.json").findings[0].trigger == "灯笼 ☃"
