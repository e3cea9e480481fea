"""lmsanitator evaluate"""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lmsanitator.cli.parameters import AllowedRate, TunedBase, seed_option


def evaluate(
    tuned: Annotated[Path, typer.Argument(help="A PEFT adapter made by `tune`.")],
    data: Annotated[str, typer.Argument(help="A folder with train.jsonl and test.jsonl, a dataset id, or `topics`.")],
    report: Annotated[Path | None, typer.Option(help="scan.json of the encoder; without it there is no guard.")] = None,
    base: TunedBase = None,
    triggers: Annotated[str | None, typer.Option(help="Comma-separated; those of the report where not given.")] = None,
    watch: Annotated[str, typer.Option(help="The pass the guard watches: auto, raw, prompted or both.")] = "raw",
    rate: AllowedRate = 0.005,
    limit: Annotated[int, typer.Option(help="Test inputs to use, drawn at random.")] = 500,
    seed: Annotated[int, seed_option("Of what is drawn, and where triggers are put.")] = 0,
) -> None:
    """Accuracy on clean text and attack success, with and without the guard, as JSON."""
    from lmsanitator.attacks import Trigger
    from lmsanitator.cli import screen
    from lmsanitator.cli.options import WATCHES, choose
    from lmsanitator.detect import ScanReport
    from lmsanitator.errors import CorpusError, UnsupportedError, UsageError
    from lmsanitator.guard import Guard
    from lmsanitator.guard import evaluate as run
    from lmsanitator.tune import load_tuned, packaged_topics, read_task
    from lmsanitator.vectors import PVBank

    if limit < 1:
        raise UsageError(f"expected a limit of 1 or more, got {limit}")
    opened = load_tuned(tuned, base=base)
    task = packaged_topics() if data == "topics" else read_task(data)
    examples = task.test if len(task.test) <= limit else random.Random(seed).sample(task.test, limit)
    if opened.labels_words:
        raise UnsupportedError("expected an adapter that gives a text one label, got one that labels words")
    unknown = sorted(set(task.labels) - set(opened.labels))
    if unknown:
        raise CorpusError(
            f"expected the labels {', '.join(opened.labels)} of the adapter, the data have {unknown[0]!r}"
        )
    pairs = examples[0].text_pair is not None
    scanned = ScanReport.load(report) if report else None
    bank = scanned.bank if scanned else PVBank(opened.encoder_digest)
    named = [finding.trigger for finding in scanned.findings if finding.trigger] if scanned else []
    planted = [Trigger.parse(part.strip()) for part in (named if triggers is None else triggers.split(","))]
    if not planted:
        raise UsageError("expected --triggers, or a report that names some: there is nothing to attack with")
    # packaged sentences say nothing of pairs, and are what `topics` is made of: no test text may set the thresholds
    clean = [example.content for example in task.train] if pairs or data == "topics" else None
    chosen = choose(watch, WATCHES, "pass")
    guard = Guard(opened.model, opened.tokenizer, bank, watch=chosen, rate=rate, clean=clean)
    for line in guard.monitor.remarks:
        screen.note(line)
    with screen.progress() as progress:
        result = run(
            guard,
            [example.content for example in examples],
            [task.labels[example.label] for example in examples],
            [trigger.plant for trigger in planted],
            seed=seed,
            progress=progress,
        )
    typer.echo(json.dumps(asdict(result), indent=2))
