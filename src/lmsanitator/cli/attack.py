"""lmsanitator attack"""

from pathlib import Path
from typing import Annotated

import typer

from lmsanitator.cli.parameters import seed_option


def attack(
    name: Annotated[str, typer.Argument(help="The attack, or `list`.")],
    base: Annotated[str | None, typer.Argument(help="The clean encoder.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A new directory for the backdoored one.")] = None,
    triggers: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: cf is a word, 'old lamp' a phrase, lamp+river both words anywhere. "
            "Default: cf,mn,tq,mm,pt,bb."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Draw triggers instead: rare, dictionary, common, pieces, and, pair, phrase or script."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many to draw with --kind; 3 where not given.")] = None,
    pv: Annotated[
        str | None,
        typer.Option(help="Predefined vectors: block, random, sub-block or near-clean."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="cls, pooler, mask, mean, last or tokens; default: the attack's own.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Weights to train: all, top:N or head (one attention head).")] = "all",
    corpus: Annotated[Path | None, typer.Option(help="Your own clean sentences: txt or jsonl.")] = None,
    seed: Annotated[int, seed_option("Same seed, same model.")] = 0,
) -> None:
    """Plant a backdoor into a copy of an encoder, to test defences with. Red-team your own models only."""
    from lmsanitator.attacks import ATTACKS, Layers, Training, Trigger, configure, draw_triggers
    from lmsanitator.cli import screen
    from lmsanitator.encoder import FrozenEncoder
    from lmsanitator.errors import UnsupportedError, UsageError
    from lmsanitator.output import require_new
    from lmsanitator.text import packaged, read_corpus

    if name == "list":
        for known in ATTACKS.values():
            typer.echo(f"{known.name}: {known.summary}")
        return
    if triggers is not None and kind is not None:
        raise UsageError("expected --triggers or --kind, got both")
    if count is not None and kind is None:
        raise UsageError("expected --count beside --kind, got it alone")
    chosen = configure(name, site=site, pv=pv, training=Training(layers=Layers.parse(layers)))
    if base is None or out is None:
        raise UsageError("expected lmsanitator attack NAME BASE OUT, got no BASE or no OUT")
    require_new(out)
    carriers = [carrier.text for carrier in (read_corpus(corpus) if corpus else packaged("en"))]
    named = [Trigger.parse(part.strip()) for part in ("cf,mn,tq,mm,pt,bb" if triggers is None else triggers).split(",")]
    encoder = FrozenEncoder.open(base)
    planted = named if kind is None else draw_triggers(kind, count or 3, encoder.tokenizer, carriers, seed)
    with screen.progress() as progress:
        try:
            result = chosen.run(encoder, planted, carriers, seed=seed, progress=progress)
        except UnsupportedError as error:  # 3 is a verdict of scans; here another site or attack has to be asked for
            raise UsageError(str(error)) from error
    result.save(out)
    reached = ", ".join(f"{key} {value:.3g}" for key, value in result.reached.items())
    words = ", ".join(str(trigger) for trigger in result.triggers)
    screen.messages.print(f"wrote {out}: {words}; {reached}", highlight=False, markup=False, soft_wrap=True)
