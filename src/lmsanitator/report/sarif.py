"""SARIF 2.1.0 (OASIS, https://docs.oasis-open.org/sarif/sarif/v2.1.0/), as code scanning services read it."""

import hashlib
from typing import Any, Literal
from urllib.parse import quote

from lmsanitator.detect import Finding, ScanReport
from lmsanitator.report.meaning import advice, command, is_evidence, meaning
from lmsanitator.report.plain import safe_json, short, trigger_words, visible
from lmsanitator.report.stored import StoredScan

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
TRIGGER, INCONCLUSIVE = "LMS001", "LMS002"
"""Ids of the rules; they never change their meaning."""

Level = Literal["error", "warning", "note"]

_RULES = (
    {
        "id": TRIGGER,
        "name": "BackdoorTrigger",
        "shortDescription": {"text": "Words that fire a task-agnostic backdoor of a pretrained encoder."},
        "fullDescription": {
            "text": "Texts that hold the trigger are sent to one fixed output vector, whatever they say. A model that "
            "is tuned on this encoder answers such texts as whoever planted the backdoor wishes."
        },
        "help": {
            "text": "Do not deploy the model. Replace it by a copy from a source you trust and scan that one; or keep "
            "it and put the guard in front: lmsanitator guard TUNED --report scan.json takes the triggers out of texts."
        },
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", "backdoor"]},
    },
    {
        "id": INCONCLUSIVE,
        "name": "Inconclusive",
        "shortDescription": {"text": "Something stands out that the scan can neither confirm nor explain."},
        "fullDescription": {
            "text": "The scan saw a significant outlier among the encoder's outputs, and no words that replay it "
            "clearly. The model is not cleared."
        },
        "help": {
            "text": "Scan again with --effort deep, and with --reference where there is a base model you trust. Until "
            "the verdict is clean, treat the model as one you do not trust."
        },
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["security"]},
    },
)


def render_sarif(scan: StoredScan) -> str:
    """One run: the scan as invocation, a result for every finding, the verdict among the run's properties."""
    report = scan.report
    results = [_result(scan, finding) for finding in report.findings]
    if report.verdict == "inconclusive" and not results:
        results = [_unexplained(report)]
    run = {
        "tool": {"driver": {"name": "lmsanitator", "version": visible(report.version), "rules": list(_RULES)}},
        "invocations": [_invocation(scan)],
        "artifacts": [{"location": {"uri": _uri(report.model.source)}, "description": {"text": "The encoder scanned"}}],
        "results": results,
        "properties": {
            "schema": report.schema_,
            "verdict": report.verdict,
            "p_value": report.p_value,
            "model": report.model.model_dump(),
            "reference": report.reference.model_dump() if report.reference else None,
            "coverage": report.coverage.model_dump(),
            "cost": report.cost.model_dump(),
        },
    }
    return safe_json({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]})


def _result(scan: StoredScan, finding: Finding) -> dict[str, Any]:
    report = scan.report
    what = "The words" if finding.trigger is not None else "The tokens (which cannot be typed)"
    beside = " in comparison with the reference" if finding.compared else ""
    said = (
        f'{what} "{trigger_words(finding)}" take over the output at {finding.site} in '
        f"{finding.replay_rate:.0%} of fresh passages{beside} (p = {short(finding.p_value)})."
    )
    return {
        **_judged(report, finding),
        "message": {"text": _literal(said) + ("" if is_evidence(finding, report) else " Weak evidence by itself.")},
        "locations": _locations(report),
        "partialFingerprints": fingerprints(scan, finding),
        "properties": {
            **finding.model_dump(),
            "evidence": is_evidence(finding, report),
            "verdict": report.verdict,
            "verdict_p_value": report.p_value,
        },
    }


def _unexplained(report: ScanReport) -> dict[str, Any]:
    """The one result of an inconclusive scan that has no words to show."""
    return {
        "ruleId": INCONCLUSIVE,
        "ruleIndex": 1,
        "level": "warning",
        "message": {"text": f"{meaning(report)} p = {short(report.p_value)}. {advice(report)}"},
        "locations": _locations(report),
        "partialFingerprints": {"verdict/v1": _hash(report.model.digest, report.verdict)},
        "properties": {"verdict": report.verdict, "p_value": report.p_value},
    }


def _judged(report: ScanReport, finding: Finding) -> dict[str, Any]:
    """Rule and level. Below a backdoored verdict a finding that is no evidence by itself is a warning only."""
    if report.verdict == "backdoored":
        level: Level = "error" if is_evidence(finding, report) else "warning"
        return {"ruleId": TRIGGER, "ruleIndex": 0, "level": level}
    return {
        "ruleId": INCONCLUSIVE,
        "ruleIndex": 1,
        "level": "warning" if report.verdict == "inconclusive" else "note",
    }


def fingerprints(scan: StoredScan, finding: Finding) -> dict[str, str]:
    """What tells the same finding in another scan of the same weights.

    By the tokens, and by the signs of the PV, which stay where another search names another part of the trigger.
    The two have names of their own, so that one is never compared with the other; without a bank there are tokens only.
    """
    digest = scan.report.model.digest
    found = {"triggerTokens/v1": _hash(digest, finding.site, *finding.trigger_tokens)}
    vector = scan.vector(finding)
    if vector is not None:
        signs = "".join("+" if value > 0 else "-" for value in vector.values.tolist())
        found["pvSigns/v1"] = _hash(digest, finding.site, signs)
    return found


def _hash(*parts: str) -> str:
    # Lengths go in, so that no two lists of parts read the same.
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _invocation(scan: StoredScan) -> dict[str, Any]:
    report = scan.report
    told = [f"Not covered: {visible(what)}" for what in report.coverage.not_covered]
    if scan.remark is not None:
        told.append(scan.remark)
    line = command(report)
    return {
        "executionSuccessful": True,
        **({} if line is None else {"commandLine": line}),
        "toolExecutionNotifications": [{"level": "note", "message": {"text": _literal(text)}} for text in told],
        "properties": {"config": report.config},
    }


def _locations(report: ScanReport) -> list[dict[str, Any]]:
    return [{"physicalLocation": {"artifactLocation": {"uri": _uri(report.model.source), "index": 0}}}]


def _uri(source: str) -> str:
    """A path or hub id as a URI that can name nothing but a file: the colon of another scheme is quoted."""
    return ("file://" if source.startswith("/") else "") + quote(source, safe="/@")


def _literal(text: str) -> str:
    """`text` where SARIF looks for placeholders and links (2.1.0, sections 3.11.5 and 3.11.6)."""
    return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}").replace("[", "\\[").replace("]", "\\]")
