"""lmsanitator guard"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmsanitator.cli.parameters import AllowedRate, TunedBase

if TYPE_CHECKING:
    from lmsanitator.detect import ScanReport
    from lmsanitator.tune import TunedModel


def guard(
    tuned: Annotated[Path, typer.Argument(help="A PEFT adapter made by `tune`.")],
    file: Annotated[Path | None, typer.Argument(help="One text a line; stdin where not given.")] = None,
    *,
    report: Annotated[Path, typer.Option(help="scan.json of the encoder.")],
    base: TunedBase = None,
    watch: Annotated[str, typer.Option(help="The pass to watch: auto, raw, prompted or both.")] = "raw",
    rate: AllowedRate = 0.005,
    clean: Annotated[Path | None, typer.Option(help="Clean texts like yours, one a line; pairs need them.")] = None,
    json: Annotated[
        bool, typer.Option(help="Lines are JSON: text, text_pair for pairs; tokens to label words.")
    ] = False,
) -> None:
    """Classify texts behind the guard, one JSON object a line: label, score, flagged, removed, text, and why."""
    from lmsanitator.cli import screen
    from lmsanitator.cli.options import WATCHES, choose, read_lines
    from lmsanitator.detect import ScanReport
    from lmsanitator.errors import UsageError
    from lmsanitator.tune import load_tuned

    scanned = ScanReport.load(report)
    opened = load_tuned(tuned, base=base)
    chosen = choose(watch, WATCHES, "pass")
    if opened.labels_words and not (json and chosen == "raw"):
        raise UsageError("expected --json and the raw pass for an adapter that labels words")
    like = read_lines(clean) if clean else None
    guarded = _words if opened.labels_words else _texts
    read, answer, remarks = guarded(opened, scanned, chosen, rate, like, json)
    for line in remarks:
        screen.note(line)
    given = read(read_lines(file), str(file or "stdin"))
    for start in range(0, len(given), 64):
        for prediction in answer(given[start : start + 64]):
            typer.echo(_line(prediction))


def _line(prediction: Any) -> str:
    """A prediction as JSON. A text that is no valid Unicode is refused by the guard, and escaped here."""
    from lmsanitator.guard.guard import is_unicode

    line = dumps(asdict(prediction), ensure_ascii=False)
    return line if is_unicode(line) else dumps(asdict(prediction))


Guarded = tuple[Callable[[Sequence[str], str], Sequence[Any]], Callable[[Sequence[Any]], Sequence[Any]], list[str]]
"""How lines are read, what answers to them, and what a person should know."""


def _texts(
    opened: "TunedModel", report: "ScanReport", watch: Any, rate: float, clean: list[str] | None, as_json: bool
) -> Guarded:
    from lmsanitator.cli.options import parse_texts, plain_texts
    from lmsanitator.guard import Guard
    from lmsanitator.guard.monitor import remarks_on

    read = parse_texts if as_json else plain_texts
    like = None if clean is None else read(clean, "--clean")
    guard = Guard(opened.model, opened.tokenizer, report, watch=watch, rate=rate, clean=like)
    return read, guard, remarks_on(report, guard.monitor)


def _words(
    opened: "TunedModel", report: "ScanReport", watch: Any, rate: float, clean: list[str] | None, as_json: bool
) -> Guarded:
    from lmsanitator.cli.options import parse_words
    from lmsanitator.guard import TaggingGuard
    from lmsanitator.guard.monitor import remarks_on

    like = None if clean is None else parse_words(clean, "--clean")
    guard = TaggingGuard(opened.model, opened.tokenizer, report, rate=rate, clean=like)
    return parse_words, guard, remarks_on(report, guard.monitor)
