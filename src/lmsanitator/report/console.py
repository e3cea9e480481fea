"""Reports as a person reads them in a terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lmsanitator.detect import ScanReport

_COLOURS = {"clean": "green", "backdoored": "red", "inconclusive": "yellow"}
_MEANING = {
    "clean": "Nothing found that behaves like a task-agnostic backdoor, within what was covered.",
    "backdoored": "Inputs that hold one of these triggers are sent to one fixed vector, whatever they say.",
    "compared": "These triggers do to every input what nothing does to the reference's.",
    "inconclusive": "Something stands out, but no words were found that fire it. Scan again with --effort deep.",
}


def render_scan(report: ScanReport) -> RenderableType:
    """Verdict first, then the triggers, then what was looked at."""
    colour = _COLOURS[report.verdict]
    meaning = _MEANING["compared" if any(finding.compared for finding in report.findings) else report.verdict]
    head = Text.assemble((report.verdict.upper(), f"bold {colour}"), f"  p = {report.p_value:.2g}\n", meaning)
    parts: list[RenderableType] = [Panel(head, title=escape(report.model.source), border_style=colour)]
    if report.findings:
        parts.append(_findings(report))
    coverage, cost = report.coverage, report.cost
    if report.reference is not None:
        parts.append(Text(f"Reference: {report.reference.source}, digest {report.reference.digest[:12]}.", style="dim"))
    parts.append(
        Text(
            f"{report.model.architecture}, {report.model.parameters / 1e6:.1f} M parameters. "
            f"Sites {', '.join(coverage.sites)}; {coverage.tokens_swept:,} tokens swept, "
            f"{coverage.candidates} candidates mined. {cost.seconds:.0f} s, "
            f"{cost.forward_tokens + cost.backward_tokens:,} tokens through the encoder.\n"
            f"Not covered: {'; '.join(coverage.not_covered)}.",
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
        shown = finding.trigger if finding.trigger is not None else " ".join(finding.trigger_tokens) + " (tokens)"
        table.add_row(
            Text(shown, style="bold"),
            f"{finding.site} (reference)" if finding.compared else finding.site,
            f"{finding.displacement:.1f}",
            f"{finding.concentration:.3f}",
            f"{finding.replay_rate:.0%}",
            f"{finding.p_value:.1g}",
        )
    return table
