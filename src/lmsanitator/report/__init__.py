"""Scan results in the forms people and machines read."""

from collections.abc import Callable

from lmsanitator.report.console import render_scan
from lmsanitator.report.html import render_html
from lmsanitator.report.markdown import render_markdown, render_model_card
from lmsanitator.report.plain import safe_json
from lmsanitator.report.sarif import render_sarif
from lmsanitator.report.stored import StoredScan, open_scan

__all__ = ["RENDERERS", "StoredScan", "open_scan", "render_scan"]

RENDERERS: dict[str, Callable[[StoredScan], str]] = {
    "json": lambda scan: safe_json(scan.report.model_dump(mode="json", by_alias=True)),
    "sarif": render_sarif,
    "html": render_html,
    "md": render_markdown,
    "model-card": render_model_card,
}
"""What a stored scan can be turned into, by the name of the format."""
