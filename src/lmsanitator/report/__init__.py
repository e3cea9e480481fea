"""Scan results in the forms people and machines read."""

from lmsanitator.report.console import render_scan

__all__ = ["render_scan"]
