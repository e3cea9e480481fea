"""lmsanitator tune"""

from pathlib import Path
from typing import Annotated

import typer

from lmsanitator.cli.parameters import seed_option


def tune(
    encoder: Annotated[str, typer.Argument(help="The encoder to tune on, clean or not.")],
    data: Annotated[
        str,
        typer.Argument(help="A folder with train.jsonl, a dataset id, or `topics`."),
    ],
    out: Annotated[Path, typer.Argument(help="A new directory for the PEFT adapter.")],
    method: Annotated[str, typer.Option(help="prefix, prompt, p-tuning or lora.")] = "prefix",
    site: Annotated[str, typer.Option(help="Where the head reads: auto, cls, pooler, mean, mask or last.")] = "auto",
    virtual_tokens: Annotated[int, typer.Option(help="Length of the soft prompt.")] = 8,
    epochs: Annotated[int | None, typer.Option(help="The most passes over the training data.")] = None,
    seed: Annotated[int, seed_option("Same seed, same adapter.")] = 0,
) -> None:
    """Tune a classifier on a frozen encoder; the result is an ordinary PEFT adapter."""
    from lmsanitator.cli import screen
    from lmsanitator.cli.options import choose
    from lmsanitator.encoder import FrozenEncoder
    from lmsanitator.output import require_new
    from lmsanitator.tune import HEAD_SITES, METHODS, TuneConfig, open_task, packaged_topics
    from lmsanitator.tune import tune as run

    chosen, reads = choose(method, METHODS, "tuning method"), choose(site, HEAD_SITES, "site")
    require_new(out)
    limits = {} if epochs is None else {"epochs": epochs}
    config = TuneConfig(method=chosen, site=reads, virtual_tokens=virtual_tokens, seed=seed, **limits)
    task = packaged_topics() if data == "topics" else open_task(data)
    with screen.progress() as progress:
        tuned = run(FrozenEncoder.open(encoder), task, config, progress=progress)
    tuned.save(out)
    text = f"wrote {out}: validation {'F1' if tuned.labels_words else 'accuracy'} {tuned.accuracy:.3f}"
    screen.messages.print(text, highlight=False, markup=False, soft_wrap=True)
