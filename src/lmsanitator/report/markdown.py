"""Markdown for a comment on a pull request, and as a section of a model card."""

from collections.abc import Sequence

import regex

from lmsanitator.detect import Finding, ScanReport
from lmsanitator.report.meaning import advice, command, is_evidence, meaning
from lmsanitator.report.plain import short, trigger_words, visible
from lmsanitator.report.stored import StoredScan

SHOWN = 10
"""Findings of a comment's table; the others are folded away."""

_MARK = regex.compile(r"[!-+.:-@\[-`{-~]")  # ASCII punctuation but , - and /, which start nothing inside a line
_SIGN = {"clean": "✅", "backdoored": "⛔", "inconclusive": "⚠️"}


def render_markdown(scan: StoredScan) -> str:
    """A comment: verdict, findings, and what was looked at in a fold."""
    report = scan.report
    parts = [f"### {_SIGN[report.verdict]} {_headline(report)}", f"{meaning(report)} {advice(report)}"]
    if report.findings:
        parts.append(_table(report, report.findings[:SHOWN]))
    if len(report.findings) > SHOWN:
        more = report.findings[SHOWN:]
        parts.append(_fold(f"{len(more)} more findings", _table(report, more)))
    if scan.remark is not None:
        parts.append(scan.remark)
    parts.append(_fold("What was looked at, and what was not", "\n".join(_coverage(report) + _repeat(report))))
    return "\n\n".join(parts) + "\n"


def render_model_card(scan: StoredScan) -> str:
    """A section for the README of a model: what was found in exactly these weights, and how to check it."""
    report = scan.report
    parts = ["## Backdoor scan", f"{_headline(report)}. {meaning(report)}"]
    if report.findings:
        parts.append(_table(report, report.findings))
    if report.verdict != "clean":
        parts.append(advice(report))
    bound = [f"- Weights: digest {_code(report.model.digest)}. The result holds for these weights only."]
    parts.append("\n".join(bound + _coverage(report) + _repeat(report)))
    if scan.remark is not None:
        parts.append(scan.remark)
    return "\n\n".join(parts) + "\n"


def _headline(report: ScanReport) -> str:
    return f"**{report.verdict}** (p = {short(report.p_value)}): {_code(report.model.source)}"


def _table(report: ScanReport, findings: Sequence[Finding]) -> str:
    rows = ["| trigger | site | p-value | replays | |", "|---|---|---:|---:|---|"]
    for finding in findings:
        notes = [
            *([] if finding.trigger is not None else ["tokens that cannot be typed"]),
            *(["against the reference"] if finding.compared else []),
            *([] if is_evidence(finding, report) else ["weak by itself"]),
        ]
        rows.append(
            f"| {_code(trigger_words(finding))} | {finding.site} | {short(finding.p_value)} "
            f"| {finding.replay_rate:.0%} | {', '.join(notes)} |"
        )
    return "\n".join(rows)


def _coverage(report: ScanReport) -> list[str]:
    seen, cost = report.coverage, report.cost
    sites, lengths = ", ".join(seen.sites), ", ".join(map(str, seen.lengths)) or "none"
    swept = f"{seen.tokens_swept:,} tokens, {seen.words_swept:,} words of several tokens"
    lines = [
        f"- Encoder: {_code(report.model.architecture)}, {report.model.parameters:,} parameters.",
        f"- Looked at: sites {sites}; {swept}; {seen.candidates:,} mined candidates.",
        f"- Triggers: lengths in tokens {lengths}; places: {_text(seen.positions)}.",
        *(f"- Not covered: {_text(what)}." for what in seen.not_covered),
        f"- Cost: {cost.seconds:.0f} s, {cost.forward_tokens + cost.backward_tokens:,} tokens through the encoder.",
    ]
    if report.reference is not None:
        lines.insert(1, f"- Compared with: {_code(report.reference.source)}, digest {_code(report.reference.digest)}.")
    return lines


def _repeat(report: ScanReport) -> list[str]:
    line = command(report)
    how = "configuration not stored" if line is None else _code(line)
    return [f"- Made with lmsanitator {_text(report.version)}: {how}"]


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _code(text: str) -> str:
    """A string of the scan, set off. A span in backticks would not do: in a table a bar ends it."""
    return f"<code>{_text(text)}</code>"


def _text(text: str) -> str:
    """A string of the scan as entities, which Markdown takes for text whatever they stand for."""
    return _MARK.sub(lambda match: f"&#{ord(match[0])};", visible(text))
