"""Input purging: take the trigger out of a flagged text without knowing what or where it is.

First the words the scan named, then every single word left out in turn (one batch), then group testing for whatever
needs several words gone: a trigger that is repeated, two different ones, or a phrase. The deletion that clears the
flag furthest wins, because a match that is only just below the threshold is still half a trigger (type II of the
paper: the flag clears by deleting the wrong word).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmsanitator.guard.monitor import Monitor
from lmsanitator.text import delete, shrink, words


@dataclass(frozen=True)
class Purged:
    """A text whose flag has cleared."""

    text: str
    removed: tuple[str, ...]
    batches: int
    """Encoder batches the search took for this text."""


@dataclass(frozen=True)
class PurgeConfig:
    """Args:
    most: words that may be taken out; a text that needs more is not purged.
    single: up to so many words, leaving out each in turn is the first thing tried.
    width: selections in a batch of the group testing.
    named: try the words the scan named first.
    """

    most: int = 8
    single: int = 96
    width: int = 32
    named: bool = True


def purge(text: str, monitor: Monitor, config: PurgeConfig) -> Purged | None:
    """The flagged text without its trigger, None where no deletion of few words clears it."""
    found = words(text)[: monitor.classifier.encoder.window]  # words beyond the window are not read
    search = _Search(text, monitor)
    if config.named:
        named = _named(found, monitor)
        if named and len(named) < len(found) and search.excess([named])[0] <= 0:
            return _done(text, found, named, search)
    if 1 < len(found) <= config.single:
        left = search.excess([[at] for at in range(len(found))])
        best = min(range(len(found)), key=left.__getitem__)
        if left[best] <= 0:
            return _done(text, found, [best], search)
    gone = shrink(
        range(len(found)),
        lambda selections: [excess <= 0 for excess in search.excess(selections)],
        most=config.most,
        width=config.width,
    )
    return _done(text, found, gone, search) if gone and len(gone) < len(found) else None


class _Search:
    """Asks the monitor about deletions and counts the batches."""

    def __init__(self, text: str, monitor: Monitor) -> None:
        self.text = text
        self.monitor = monitor
        self.batches = 0

    def excess(self, selections: Sequence[Sequence[int]]) -> list[float]:
        self.batches += 1
        values: list[float] = self.monitor.excess([delete(self.text, set(gone)) for gone in selections]).tolist()
        return values


def _named(found: Sequence[str], monitor: Monitor) -> list[int]:
    """Where words of named triggers stand: in any case, since most encoders do not tell cases apart."""
    triggers = {word.casefold() for vector in monitor.bank if vector.trigger for word in words(vector.trigger)}
    return [at for at, word in enumerate(found) if word.casefold() in triggers]


def _done(text: str, found: Sequence[str], gone: Sequence[int], search: _Search) -> Purged:
    return Purged(delete(text, set(gone)), tuple(found[at] for at in gone), search.batches)
