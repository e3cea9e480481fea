"""The fewest items that still do it, by group testing.

The same search serves both ends of the defence: which words of a firing group are the trigger (recovery), and which
words of a flagged text have to go (purging).
"""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Shrinking = Generator[list[list[Item]], Sequence[bool], list[Item] | None]
"""Yields selections, is sent whether each of them works, and returns what `shrink` does."""


def shrink(
    items: Sequence[Item],
    works: Callable[[list[list[Item]]], Sequence[bool]],
    *,
    most: int,
    width: int = 16,
) -> list[Item] | None:
    """A selection of `items`, in order, that works and from which nothing can be dropped; None if it needs too many.

    Finds the shortest prefix that works: its last item is needed. That item is kept from then on and the search goes
    on in what is before it, until nothing more is needed. Right whenever adding items never undoes what works; what
    else the items hold, copies of a needed one for instance, does not matter. An item costs about
    log(items) / log(width) calls.

    Args:
        works: tells for each of several selections whether it works; asked in batches, because one encoder pass
            answers a whole batch. It must hold for `items` themselves.
        most: give up beyond so many items.
        width: selections in a batch.
    """
    search = shrinking(items, most=most, width=width)
    try:
        asked = next(search)
        while True:
            asked = search.send(works(asked))
    except StopIteration as end:
        found: list[Item] | None = end.value
        return found


def shrinking(items: Sequence[Item], *, most: int, width: int = 16) -> Shrinking[Item]:
    """The search of `shrink` with the questions handed out, so that several searches can share a batch."""
    needed: list[int] = []
    rest = len(items)
    while True:
        low, high = -1, rest  # the prefix of length `high` works, that of length `low` does not
        while high - low > 1:
            lengths = sorted({low + max(1, (high - low) * (n + 1) // (width + 1)) for n in range(width)} - {high})
            passed = yield [[items[at] for at in sorted([*range(length), *needed])] for length in lengths]
            high = next((length for length, good in zip(lengths, passed, strict=True) if good), high)
            low = max((length for length in lengths if length < high), default=low)
        if high == 0:
            return [items[at] for at in sorted(needed)]
        if len(needed) == most:
            return None
        needed.append(high - 1)
        rest = high - 1
