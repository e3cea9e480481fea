"""Options that several commands have. Nothing heavy is imported here: `--help` is to come at once."""

from typing import Annotated, Any

import typer

TunedBase = Annotated[
    str | None, typer.Option(help="The encoder that TUNED was made for, if it is not where it says; a hub id, too.")
]
AllowedRate = Annotated[float, typer.Option(help="Share of clean texts that may be flagged.")]


def seed_option(says: str) -> Any:  # what typer.Option gives is typed so
    """A seed, with the help that says what it settles. Generators of numbers take no negative ones."""
    return typer.Option(min=0, max=2**31, help=says)
