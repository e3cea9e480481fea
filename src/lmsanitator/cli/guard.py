"""lmsanitator guard"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def guard(
    tuned: Annotated[Path, typer.Argument(help="A PEFT adapter made by `tune`.")],
    file: Annotated[Path | None, typer.Argument(help="One text a line; stdin where not given.")] = None,
    *,
    report: Annotated[Path, typer.Option(help="scan.json of the encoder.")],
    watch: Annotated[str, typer.Option(help="The pass to watch: auto, raw, prompted or both.")] = "raw",
    rate: Annotated[float, typer.Option(help="Share of clean texts that may be flagged.")] = 0.005,
    clean: Annotated[Path | None, typer.Option(help="Clean texts like yours, one a line.")] = None,
) -> None:
    """Classify texts behind the guard, one JSON object a line: label, score, flagged, removed, text, and why."""
    from lmsanitator.cli.options import choose_watch, read_lines
    from lmsanitator.detect import ScanReport
    from lmsanitator.guard import Guard
    from lmsanitator.tune import load_tuned

    scanned = ScanReport.load(report)
    opened = load_tuned(tuned)
    guarded = Guard(
        opened.model,
        opened.tokenizer,
        scanned,
        watch=choose_watch(watch),
        rate=rate,
        clean=read_lines(clean) if clean else None,
    )
    for line in guarded.monitor.remarks:
        typer.echo(f"lmsanitator: {line}", err=True)
    lines = read_lines(file) if file else [line for line in sys.stdin.read().splitlines() if line.strip()]
    for start in range(0, len(lines), 64):
        for prediction in guarded(lines[start : start + 64]):
            typer.echo(json.dumps(asdict(prediction), ensure_ascii=False))
