"""The command itself."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new directory for everything the demo makes.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Draws the triggers.")] = 0,
) -> None:
    """Plant a backdoor into MiniLM-L6, find it, and disarm it: about five minutes on two cores."""
    from lmsanitator.cli import screen
    from lmsanitator.cli.demo.page import render_demo, save_picture
    from lmsanitator.cli.demo.story import run_demo

    with screen.progress() as progress:
        story = run_demo(output, seed=seed, progress=progress)
    page = render_demo(story)
    screen.out.print(page)
    save_picture(page, output / "demo.svg")
    screen.messages.print(f"wrote {output}/demo.json, demo.svg and the models", highlight=False, markup=False)
