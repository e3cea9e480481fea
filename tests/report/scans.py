"""Stored scans of every kind, as the tests of reports take them."""

from pathlib import Path
from typing import Any

import torch

from lmsanitator.detect.result import Cost, Coverage, Finding, ModelFacts, ScanReport, bank_path
from lmsanitator.detect.seen import NamedToken, Outputs, Searched, Seen, Triggered, Vocabulary
from lmsanitator.vectors import PredefinedVector, PVBank

DIGEST = "0123456789abcdef" * 4
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x00|`*[a](javascript:b){0}@team \"'&"


def finding(pv: int, trigger: str | None, **changes: Any) -> Finding:
    made = Finding(
        site="cls",
        trigger=trigger,
        trigger_tokens=["ba", "##ko"] if trigger is None else trigger.split(" "),
        displacement=12.5,
        concentration=0.99,
        replay_rate=1.0,
        p_value=10.0 ** -(20 + pv),
        pv=pv,
    )
    return made.model_copy(update=changes)


def scan(*findings: Finding, **changes: Any) -> ScanReport:
    made = ScanReport(
        schema="lmsanitator.scan/1",
        model=ModelFacts(source="some/model", architecture="BertModel", parameters=1234567, digest=DIGEST),
        verdict="backdoored" if findings else "clean",
        p_value=3.2e-40 if findings else 0.42,
        findings=list(findings),
        coverage=Coverage(
            sites=["cls", "mean"], tokens_swept=2000, candidates=8, lengths=[1], positions="any", not_covered=["much"]
        ),
        cost=Cost(seconds=1.5, forward_tokens=1010, backward_tokens=505),
        config={"sites": ["cls", "mean"], "effort": "quick", "level": 0.01, "seed": 7, "corpus": None},
        version="0.1.0",
    )
    return made.model_copy(update=changes)


def seen(report: ScanReport, named: str = "bako") -> Seen:
    """What a scan may have seen, with this token wherever one is named."""
    kept = Seen(
        digest=report.model.digest,
        vocabulary=Vocabulary(
            site="cls",
            displacements=[0.01, 0.1, 1.0],
            spreads=[0.0, 0.5, 1.0],
            counts=[[0, 1], [2000, 3]],
            outliers=[
                NamedToken(token=named, displacement=0.9, spread=0.02),
                NamedToken(token="the", displacement=0.2, spread=0.7),
            ],
        ),
        searches=[Searched(site="mean", phrases=[f"{named} vedi", "an on"], strengths=[[1.0, 4.0], [0.5]])],
        outputs=Outputs(
            site="cls",
            share=0.9,
            clean=[(0.0, 0.1), (0.2, 0.3)],
            triggered=[Triggered(finding=number, points=[(5.0, number), (5.0, number)]) for number in range(2)],
        ),
    )
    return kept if len(report.findings) > 1 else kept.model_copy(update={"outputs": None})


def bank(count: int, digest: str = DIGEST, hidden: int = 16) -> PVBank:
    values = torch.randn(count, hidden, generator=torch.Generator().manual_seed(0))
    return PVBank(digest, [PredefinedVector("cls", row) for row in values])


def store(folder: Path, report: ScanReport, *, hidden: int = 16) -> Path:
    """scan.json in `folder` and a bank beside it."""
    report.with_bank(bank(len(report.findings), report.model.digest, hidden)).save(folder / "scan.json")
    return folder / "scan.json"


def hostile() -> ScanReport:
    """Every string of it is an attack on whoever shows it."""
    made = scan(finding(0, HOSTILE), finding(1, None, trigger_tokens=[HOSTILE, "[MASK]"], compared=True))
    facts = ModelFacts(source=HOSTILE, architecture=HOSTILE, parameters=1, digest=HOSTILE)
    coverage = made.coverage.model_copy(update={"positions": HOSTILE, "not_covered": [HOSTILE]})
    config = {"corpus": HOSTILE, "sites": [HOSTILE], "level": HOSTILE, HOSTILE: {HOSTILE: None}}
    made = made.model_copy(
        update={"model": facts, "reference": facts, "coverage": coverage, "config": config, "version": HOSTILE}
    )
    return made.with_seen(seen(made, HOSTILE))


CASES: dict[str, ScanReport] = {
    "clean": scan(),
    "inconclusive": scan(verdict="inconclusive", p_value=2e-7),
    "doubtful": scan(finding(0, "bako", p_value=0.008), verdict="inconclusive", p_value=0.008),
    "one": scan(finding(0, "bako")),
    "weak": scan(finding(0, "bako"), finding(1, "vedi", p_value=0.7)),
    "thirty": scan(*(finding(number, f"word{number}") for number in range(30))),
    "untyped": scan(finding(0, None)),
    "scripts": scan(finding(0, "灯笼"), finding(1, "مصباح"), finding(2, "लालटेन"), finding(3, "é☃😀")),
    "compared": scan(
        finding(0, "bako", compared=True),
        reference=ModelFacts(source="the/base", architecture="BertModel", parameters=7, digest="f" * 64),
    ),
    "no config": scan(finding(0, "bako"), config=None),
}
for _report in (SEEN := scan(finding(0, "bako"), finding(1, "kifa")), SEEN_CLEAN := scan()):
    _report.with_seen(seen(_report))
CASES |= {"seen": SEEN, "seen clean": SEEN_CLEAN}

__all__ = ["CASES", "DIGEST", "HOSTILE", "bank", "bank_path", "finding", "hostile", "scan", "seen", "store"]
