"""What a person sees: progress on stderr where it is a terminal, nothing where it is a pipe."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from lmsanitator.progress import Progress

out = Console()
messages = Console(stderr=True)


def fail(message: str) -> None:
    """One line that says what went wrong; what a hostile file put into it cannot steer the terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    messages.print(f"lmsanitator: {shown}", style="red", markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A bar that follows the work; silent where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bars:
        task = bars.add_task("starting", total=1.0)
        yield lambda what, done: bars.update(task, description=what, completed=done)
