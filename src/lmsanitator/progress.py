"""How long work tells what it is doing; who listens decides how to show it."""

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is going on and the fraction of it that is done, 0 to 1."""


def silent(what: str, done: float) -> None:
    """Nobody listens."""
