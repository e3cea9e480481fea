"""The demo's page: what happened, for someone who has never heard of PVs."""

import io
import re
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lmsanitator.cli.demo.story import Story
from lmsanitator.errors import OutputError
from lmsanitator.report import render_scan


def render_demo(story: Story) -> RenderableType:
    """Five steps, each with its result."""
    return Group(
        Text("\n1  An encoder as published. The scan finds nothing.", style="bold"),
        render_scan(story.clean),
        Text(
            f"\n2  We plant {len(story.planted)} triggers. A text that holds one is sent to a fixed vector.",
            style="bold",
        ),
        Text("   " + ", ".join(story.planted)),
        Text("\n3  The same scan on that encoder. It is told nothing about the triggers.", style="bold"),
        render_scan(story.backdoored),
        _triggers(story),
        Text("\n4  Someone tunes a soft prompt on it to sort texts by topic. The backdoor is inherited.", style="bold"),
        Text("5  The guard watches the encoder's output and takes trigger words out of the input.", style="bold"),
        _task(story),
        Text(f"\n{story.seconds:.0f} s in all.", style="dim"),
    )


def _triggers(story: Story) -> RenderableType:
    table = Table(title=f"planted and found: {len(story.found)} of {len(story.planted)}", title_justify="left")
    table.add_column("planted")
    table.add_column("named by the scan")
    named = [finding.trigger or " ".join(finding.trigger_tokens) for finding in story.backdoored.findings]
    for word in story.planted:
        table.add_row(word, Text("yes", style="green") if word in story.found else Text("no", style="red"))
    for word in named:
        if word not in story.planted:
            table.add_row("", Text(word, style="yellow"))
    return table


def _task(story: Story) -> RenderableType:
    task = story.task
    table = Table()
    table.add_column("")
    table.add_column("without guard", justify="right")
    table.add_column("with guard", justify="right")
    table.add_row("right on clean text", f"{task.cacc_unguarded:.1%}", f"{task.cacc_guarded:.1%}")
    table.add_row(
        "attacks that succeed",
        Text(f"{task.asr_unguarded:.1%}", style="red"),
        Text(f"{task.asr_guarded:.1%}", style="green"),
    )
    note = f"{task.purged_clean_rate:.1%} of the flagged texts were purged and then classified right."
    return Panel(Group(table, Text(note, style="dim")), expand=False)


def save_picture(page: RenderableType, path: Path) -> None:
    """The page as a self-contained SVG, in whatever fixed-width font the viewer has.

    Raises:
        OutputError: it cannot be written.
    """
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(page)
    picture = console.export_svg(title="lmsanitator demo")
    picture = re.sub(r"@font-face\s*\{.*?\}\s*", "", picture, flags=re.DOTALL)  # rich would fetch a font from the web
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"expected to write {path}: {error.strerror}") from error
