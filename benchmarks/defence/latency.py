"""What the guard costs on clean traffic, measured side by side with the classifier alone."""

import statistics
import time
from collections.abc import Callable, Sequence

from lmsanitator.guard import Guard
from lmsanitator.text import Text


def overhead(guard: Guard, batches: Sequence[Sequence[Text]], rounds: int) -> float:
    """Time of the guard over that of the classifier alone.

    Each batch goes through both, one right after the other and in turn the one or the other first; the ratio is that of
    the summed medians over the rounds. The time is the processor's: on cores that are shared with other work the clock
    on the wall says more of that work than of the guard.
    """
    plain: list[list[float]] = [[] for _ in batches]
    guarded: list[list[float]] = [[] for _ in batches]
    for number in range(rounds):
        for index, batch in enumerate(batches):
            both: list[tuple[Callable[[Sequence[Text]], object], list[list[float]]]] = [
                (guard.unguarded, plain),
                (guard, guarded),
            ]
            for run, times in both if (number + index) % 2 == 0 else reversed(both):
                times[index].append(_seconds(run, batch))
    return ratio(plain, guarded)


def ratio(plain: Sequence[Sequence[float]], guarded: Sequence[Sequence[float]]) -> float:
    """Summed medians of the guarded times over those of the plain ones."""
    return sum(map(statistics.median, guarded)) / sum(map(statistics.median, plain))


def _seconds(run: Callable[[Sequence[Text]], object], batch: Sequence[Text]) -> float:
    started = time.process_time()
    run(batch)
    return time.process_time() - started
