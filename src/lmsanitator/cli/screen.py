"""What a person sees: progress on stderr where it is a terminal, nothing where it is a pipe.

rich follows NO_COLOR, FORCE_COLOR and TERM by itself.
"""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lmsanitator.progress import Progress

out = Console()
messages = Console(stderr=True)
_errors = Console(stderr=True)  # is never quiet


class _Voice:
    """How much the command under way says."""

    steps = False


def speak(*, quiet: bool, verbose: bool) -> None:
    """Set how much is said: nothing but errors, or a line for each step as well."""
    messages.quiet = quiet
    _Voice.steps = verbose


def fail(message: str) -> None:
    """One line that says what went wrong; what a hostile file put into it cannot steer the terminal."""
    _errors.print(_line(message), style="red", markup=False, soft_wrap=True)


def note(message: str, *, always: bool = False) -> None:
    """One line that a person should know, harmless in the same way; `always` says it to the quiet as well."""
    (_errors if always else messages).print(_line(message), highlight=False, markup=False, soft_wrap=True)


def _line(message: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    return f"lmsanitator: {shown}"


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A bar that follows the work: the step, how much of it is done, time so far, and time left of this step.

    Silent where stderr is no terminal; `--verbose` writes a line for each step, there too.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left", style="progress.remaining"),
    )
    shown = messages.is_terminal and not messages.quiet
    started = time.monotonic()
    with Bars(*columns, console=messages, transient=True, disable=not shown) as bars:
        bar = bars.add_task("starting", total=1.0)
        began = bars.tasks[0].start_time

        def follow(what: str, done: float) -> None:
            task = bars.tasks[0]
            if what != task.description:
                bars.reset(bar, description=what)  # the pace of one step says nothing about the next
                task.start_time = began
                if _Voice.steps:
                    note(f"{time.monotonic() - started:7.1f} s  {what}")
            bars.update(bar, completed=done)

        yield follow
