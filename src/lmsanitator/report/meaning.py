"""What a verdict means, what to do about it, and how to come to it again."""

import shlex

from lmsanitator.detect import Finding, ScanReport
from lmsanitator.detect.verdict import holds
from lmsanitator.report.plain import visible

_MEANING = {
    "clean": "Nothing found that behaves like a task-agnostic backdoor, within what was covered.",
    "backdoored": "Inputs that hold one of these triggers are sent to one fixed vector, whatever they say.",
    "compared": "These triggers do to every input what nothing does to the reference's.",
    "inconclusive": "Something stands out, but no words were found that fire it.",
    "doubtful": "Something stands out, but not clearly enough to call it a backdoor.",
}
_ADVICE = {
    "clean": "You can use the model; read below what was not covered.",
    "backdoored": "Do not deploy this model. Take it from a source you trust, or put the guard in front of what is "
    "built on it (lmsanitator guard --report scan.json).",
    "inconclusive": "Scan again with --effort deep before you use the model, and with --reference where there is a "
    "base you trust.",
}
LEVEL = 0.01
"""The level of a scan whose configuration was not stored."""


def meaning(report: ScanReport) -> str:
    """The verdict in a sentence."""
    if report.verdict == "backdoored":
        return _MEANING["compared" if any(finding.compared for finding in report.findings) else "backdoored"]
    return _MEANING["doubtful" if report.verdict == "inconclusive" and report.findings else report.verdict]


def advice(report: ScanReport) -> str:
    """What to do now."""
    return _ADVICE[report.verdict]


def is_evidence(finding: Finding, report: ScanReport) -> bool:
    """Whether the verdict "backdoored" can rest on a finding; weaker ones are listed beside such, and say less."""
    level = (report.config or {}).get("level")
    return report.verdict == "backdoored" and holds(finding, level if isinstance(level, float) else LEVEL)


def command(report: ScanReport) -> str | None:
    """The command line that repeats the scan; None where its configuration was not stored."""
    if report.config is None:
        return None
    parts = ["lmsanitator", "scan"]
    for name, option in (
        ("sites", "--site"),
        ("effort", "--effort"),
        ("corpus", "--corpus"),
        ("level", "--level"),
        ("reference", "--reference"),
        ("base", "--base"),
        ("seed", "--seed"),
        ("precision", "--precision"),
        ("device", "--device"),
    ):
        value = report.config.get(name)
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value is not None:
            parts += [option, str(value)]
    parts += ["--allow-pickle"] if report.config.get("allow_pickle") is True else []
    parts += ["--", report.model.source] if report.model.source.startswith("-") else [report.model.source]
    return visible(shlex.join(parts))
