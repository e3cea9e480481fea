"""Reports as a person reads them in a terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lmsanitator.detect import ScanReport
from lmsanitator.report.meaning import advice, meaning
from lmsanitator.report.plain import trigger_words, visible

_COLOURS = {"clean": "green", "backdoored": "red", "inconclusive": "yellow"}


def render_scan(report: ScanReport) -> RenderableType:
    """Verdict first, then the triggers, then what was looked at."""
    colour = _COLOURS[report.verdict]
    said = meaning(report) + (f" {advice(report)}" if report.verdict == "inconclusive" else "")
    head = Text.assemble((report.verdict.upper(), f"bold {colour}"), f"  p = {report.p_value:.2g}\n", said)
    parts: list[RenderableType] = [Panel(head, title=escape(visible(report.model.source)), border_style=colour)]
    if report.findings:
        parts.append(_findings(report))
    coverage, cost = report.coverage, report.cost
    if report.reference is not None:
        parts.append(
            Text(f"Reference: {visible(report.reference.source)}, digest {report.reference.digest[:12]}.", style="dim")
        )
    parts.append(
        Text(
            f"{visible(report.model.architecture)}, {report.model.parameters / 1e6:.1f} M parameters. "
            f"Sites {', '.join(coverage.sites)}; {coverage.tokens_swept:,} tokens and "
            f"{coverage.words_swept:,} longer words swept, "
            f"{coverage.candidates} candidates mined. {cost.seconds:.0f} s, "
            f"{cost.forward_tokens + cost.backward_tokens:,} tokens through the encoder.\n"
            f"Not covered: {'; '.join(map(visible, coverage.not_covered))}.",
            style="dim",
        )
    )
    return Group(*parts)


def _findings(report: ScanReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("trigger", "site"):
        table.add_column(column)
    for column in ("displacement", "concentration", "replays", "p"):
        table.add_column(column, justify="right")
    for finding in report.findings:
        shown = trigger_words(finding) + ("" if finding.trigger is not None else " (tokens)")
        table.add_row(
            Text(shown, style="bold"),
            f"{finding.site} (reference)" if finding.compared else finding.site,
            f"{finding.displacement:.1f}",
            f"{finding.concentration:.3f}",
            f"{finding.replay_rate:.0%}",
            f"{finding.p_value:.1g}",
        )
    return table
