"""What purging a flagged text of 60 words takes, one text at a time."""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.defence.tuning import planted
from lmsanitator.attacks import Trigger
from lmsanitator.guard import Guard, PurgeConfig, purge_all
from lmsanitator.text import words
from lmsanitator.tune import Text

WORDS = 60


def long_texts(texts: Sequence[Text], triggers: Sequence[Trigger], copies: int, count: int) -> list[Text]:
    """Texts of 60 words or more, put together from others, each with one trigger in it `copies` times."""
    rng = random.Random(f"{copies} of a trigger in a long text")
    made: list[Text] = []
    for number in range(count):
        first, *second = _sides(rng.choice(texts))
        while len(words(first)) < WORDS:
            first = f"{first} {_sides(rng.choice(texts))[0]}"
        content: Text = (first, second[0]) if second else first
        made.append(planted(content, triggers[number % len(triggers)], rng, copies))
    return made


def cost(
    guard: Guard, texts: Sequence[Text], triggers: Sequence[Trigger], copies: int, *, named: bool
) -> dict[str, Any]:
    """Purge each flagged text alone, and count the batches that go through the encoder meanwhile.

    Args:
        texts: what `long_texts` made of these triggers.
        named: the guard knows the words that the scan named; otherwise it is blind.
    """
    flags = guard.monitor.check(texts, named=named).flags.tolist()
    batches: list[int] = []
    alone = 0
    for index in [index for index, flagged in enumerate(flags) if flagged]:
        with _batches_of(guard) as passed:
            (result,) = purge_all([texts[index]], guard.monitor, PurgeConfig(named=named))
        batches.append(passed())
        expected = Counter(triggers[index % len(triggers)].words * copies)
        alone += result is not None and Counter(result.removed) == expected
    return {
        "texts": len(texts),
        "flagged": len(batches),
        "trigger_alone": alone,
        "median": statistics.median(batches) if batches else None,
        "most": max(batches, default=None),
    }


@contextmanager
def _batches_of(guard: Guard) -> Iterator[Callable[[], int]]:
    """Counts forward passes, of the raw encoder and of the one in the classifier, which may be the same."""
    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1

    modules = {id(module): module for module in (guard.classifier.encoder.model, guard.classifier.backbone)}
    with ExitStack() as hooks:
        for module in modules.values():
            hooks.callback(module.register_forward_hook(add).remove)
        yield lambda: count


def _sides(content: Text) -> tuple[str, ...]:
    return (content,) if isinstance(content, str) else content
