"""lmsanitator report"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ReportFormat(StrEnum):
    json = "json"
    sarif = "sarif"
    html = "html"
    md = "md"
    model_card = "model-card"


def report(
    scan: Annotated[Path, typer.Argument(help="scan.json as `scan -o` wrote it, its PV bank beside it.")],
    *,
    format: Annotated[ReportFormat, typer.Option("--format", help="What to make of it.")],  # noqa: A002
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here; - is stdout.")] = None,
) -> None:
    """Turn a stored scan into JSON, SARIF, an HTML page, a comment for a pull request or a section of a model card.

    Exit code: 0 written (whatever the verdict), 2 the scan cannot be read or the output not written, 4 usage.
    """
    from lmsanitator.cli import screen
    from lmsanitator.cli.options import check_place
    from lmsanitator.detect import bank_path, seen_path
    from lmsanitator.errors import UsageError
    from lmsanitator.output import write_file
    from lmsanitator.report import RENDERERS, open_scan

    if output is not None and str(output) != "-":
        check_place(output)
        if output.resolve() in [path.resolve() for path in (scan, bank_path(scan), seen_path(scan))]:
            raise UsageError(f"expected another file to write to than the scan itself, got {output}")
    opened = open_scan(scan)
    if opened.remark is not None:
        screen.note(opened.remark)
    text = RENDERERS[format.value](opened)
    if output is None or str(output) == "-":
        typer.echo(text.encode(), nl=False)  # bytes: UTF-8 whatever the terminal's encoding, as in a file
    else:
        write_file(output, text)
