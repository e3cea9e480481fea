"""lmsanitator attack"""

from pathlib import Path
from typing import Annotated

import typer


def attack(
    name: Annotated[str, typer.Argument(help="The attack, or `list`.")],
    base: Annotated[str | None, typer.Argument(help="The clean encoder.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A new directory for the backdoored one.")] = None,
    triggers: Annotated[
        str, typer.Option(help="Comma-separated: cf is a word, 'old lamp' a phrase, lamp+river both words anywhere.")
    ] = "cf,mn,tq,mm,pt,bb",
    corpus: Annotated[Path | None, typer.Option(help="Your own clean sentences: txt or jsonl.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same model.")] = 0,
) -> None:
    """Plant a backdoor into a copy of an encoder, to test defences with. Red-team your own models only."""
    from lmsanitator.attacks import ATTACKS, Trigger
    from lmsanitator.cli import screen
    from lmsanitator.encoder import FrozenEncoder
    from lmsanitator.errors import AttackError, UsageError
    from lmsanitator.output import require_new
    from lmsanitator.text import packaged, read_corpus

    if name == "list":
        for known in ATTACKS.values():
            typer.echo(f"{known.name}: {known.summary}")
        return
    if name not in ATTACKS:
        raise AttackError(f"expected an attack of {', '.join(ATTACKS)}; got {name}")
    if base is None or out is None:
        raise UsageError("expected lmsanitator attack NAME BASE OUT, got no BASE or no OUT")
    require_new(out)
    planted = [Trigger.parse(part.strip()) for part in triggers.split(",")]
    carriers = [carrier.text for carrier in (read_corpus(corpus) if corpus else packaged("en"))]
    encoder = FrozenEncoder.open(base)
    with screen.progress() as progress:
        result = ATTACKS[name]().run(encoder, planted, carriers, seed=seed, progress=progress)
    result.save(out)
    reached = ", ".join(f"{key} {value:.3g}" for key, value in result.reached.items())
    screen.messages.print(f"wrote {out}: {reached}", highlight=False, markup=False)
