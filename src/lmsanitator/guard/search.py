"""Which words of one flagged text have to go, asked in rounds of small questions.

1. The words of the triggers the scan named, where a whole trigger is in the text.
2. Blocks of words: each alone in a neutral sentence, and each left out of the text. What follows asks about single
   words only in the blocks that stand out, so that a text of n words takes some sqrt(n) questions instead of n.
3. The words of the blocks that are flagged in the neutral sentence, each alone there: a trigger is flagged by itself,
   however often it is repeated and however many triggers there are.
4. The words of the block without which the flag clears, each left out: an AND trigger or a phrase fires no more when
   one of its words is gone.
5. Group testing (`shrinking`) for whatever needs more than that.

Then words that are not needed are put back: the shortest deletion is wanted. All copies of a word go or stay together,
whatever their case: a copy that would be left in is a trigger that did not fire this time.
"""

import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

from lmsanitator.guard.named import folded
from lmsanitator.guard.parts import Parts
from lmsanitator.text import Text, insert_first, shrinking, sides, spans

Search = Generator[list[Text], list[float], list[int] | None]
"""Yields what is left of an input, or a text to try a word in; is sent the monitor's excess of each (0 or less: not
flagged), returns word positions to delete."""
Block = list[list[int]]
"""Different words, each as the positions it stands at."""
_AS_CLEAR = 0.5
"""A word may be put back if at least this share of the distance below the threshold is left."""


@dataclass(frozen=True)
class PurgeConfig:
    """Args:
    most: different words that may be taken out; a text that needs more is not purged.
    width: selections in a round of the group testing.
    named: try the words the scan named first, and flag texts that hold them sooner (`NamedTriggers`).
    rounds: rounds of questions after which a text is given up.
    """

    most: int = 8
    width: int = 32
    named: bool = True
    rounds: int = 24


def search(parts: Parts, named: Sequence[str], neutral: Text, config: PurgeConfig, window: int) -> Search:
    """The word positions whose deletion clears the flag of an input, None where there are none that leave a word.

    Args:
        parts: the input in words.
        named: triggers by name.
        neutral: a sentence that is not suspicious.
        window: words that the encoder reads at most.
    """
    asked = _Deletions(parts, window)
    suspects: set[int] = set()
    if config.named and (suspects := asked.places_of(named)):
        gone = yield from _fewest(asked, suspects, config)
        if gone is not None:
            return gone
    blocks = asked.blocks(suspects)
    hot, values = yield from _by_blocks(asked, blocks, neutral, suspects)
    alone = (yield from _alone(asked, hot, neutral)) if hot else set()
    if alone:
        suspects |= alone
        gone = yield from _fewest(asked, suspects, config)
        if gone is not None:
            return gone
        blocks = asked.blocks(suspects)
        values = yield [asked.without(suspects.union(*block)) for block in blocks]
    gone = yield from _left_out(asked, blocks, values, suspects, config)
    if gone is not None:
        return gone
    return (yield from _group_tested(asked, suspects, config))


class _Deletions:
    """Deletions from what is looked at of an input, all copies of a word together."""

    def __init__(self, parts: Parts, window: int) -> None:
        self.words = parts.words
        self.without = parts.without
        self.leaves_words = parts.leaves_words
        self.window = window
        kinds: dict[str, list[int]] = {}
        for at, word in enumerate(self.words):
            kinds.setdefault(word.casefold(), []).append(at)
        self.kinds = kinds
        """Where each different word stands, whatever its case."""
        self.read: Block = [places for places in kinds.values() if not parts.read.isdisjoint(places)]

    def placed(self, block: Block, neutral: Text) -> Text:
        """The words of a block in the middle of a neutral sentence."""
        middle = len(spans(sides(neutral)[0])) // 2
        return insert_first(neutral, " ".join(self.words[places[0]] for places in block), middle)

    def possible(self, gone: Collection[int]) -> bool:
        """Whether a word is left, and no word moves up that is not looked at."""
        return 0 < len(gone) <= self.window and self.leaves_words(gone)

    def places_of(self, triggers: Sequence[str]) -> set[int]:
        """The words of the triggers that are in the text whole, side by side or not."""
        whole = [folded(trigger) for trigger in triggers]
        return {at for kinds in whole if kinds <= self.kinds.keys() for kind in kinds for at in self.kinds[kind]}

    def blocks(self, known: Collection[int]) -> list[Block]:
        """The different words, less those known, in blocks of neighbours, as many blocks as words in each. Words that
        cannot go together, since they are all there is, are blocks of their own."""
        tried = [places for places in self.read if places[0] not in known]
        size = math.isqrt(len(tried)) or 1
        joined = [tried[start : start + size] for start in range(0, len(tried), size)]
        split = [[block] if self.possible({*known}.union(*block)) else [[one] for one in block] for block in joined]
        return [block for blocks in split for block in blocks if self.possible({*known}.union(*block))]


def _by_blocks(
    asked: _Deletions, blocks: Sequence[Block], neutral: Text, suspects: set[int]
) -> Generator[list[Text], list[float], tuple[Block, list[float]]]:
    """The words of the blocks that are flagged in a neutral sentence, and the excess without each block."""
    values = yield [
        *(asked.placed(block, neutral) for block in blocks),
        *(asked.without(suspects.union(*block)) for block in blocks),
    ]
    inside, without = values[: len(blocks)], values[len(blocks) :]
    return [places for block, value in zip(blocks, inside, strict=True) if value > 0 for places in block], without


def _alone(asked: _Deletions, tried: Block, neutral: Text) -> Generator[list[Text], list[float], set[int]]:
    """The words that are flagged in a neutral sentence."""
    values = yield [asked.placed([places], neutral) for places in tried]
    return {at for places, value in zip(tried, values, strict=True) if value > 0 for at in places}


def _left_out(
    asked: _Deletions, blocks: Sequence[Block], values: Sequence[float], suspects: set[int], config: PurgeConfig
) -> Search:
    """The word without which, beside the suspects, the flag clears furthest, in the block of which that is true: a
    match that is only just below the threshold may still be half a trigger (type II of the paper: the wrong word is
    deleted).

    Args:
        values: the excess without the suspects and each block.
    """
    best = min(range(len(blocks)), key=values.__getitem__, default=None)
    if best is None or values[best] > 0:
        return None
    block = blocks[best]
    tried = [suspects | set(places) for places in block]
    excess = (yield [asked.without(gone) for gone in tried]) if len(block) > 1 else [values[best]]
    deepest = min(range(len(tried)), key=excess.__getitem__)
    if excess[deepest] > 0:
        return (yield from _fewest(asked, suspects.union(*block), config, values[best]))
    return (yield from _fewest(asked, tried[deepest], config, excess[deepest]))


def _group_tested(asked: _Deletions, suspects: set[int], config: PurgeConfig) -> Search:
    """The fewest different words, beside the suspects, that clear the flag."""
    items = [places for places in asked.read if places[0] not in suspects]
    found = yield from _shrunk(asked, items, suspects, 0.0, config, config.most)
    return (yield from _fewest(asked, suspects.union(*found), config)) if found is not None else None


def _fewest(asked: _Deletions, gone: set[int], config: PurgeConfig, excess: float | None = None) -> Search:
    """What is left of a deletion when words are put back that are not needed; None where it does not clear the flag.

    Args:
        excess: of the whole deletion, where it is known.
    """
    if not asked.possible(gone):
        return None
    kinds = [held for places in asked.kinds.values() if (held := [at for at in places if at in gone])]
    each = [gone.difference(held) for held in kinds] if len(kinds) > 1 else []
    values = yield [asked.without(one) for one in ([gone, *each] if excess is None else each)]
    if excess is None:
        excess, *values = values
    if excess > 0:
        return None
    clear = excess * _AS_CLEAR
    if not any(value <= clear for value in values):
        return sorted(gone)
    found = yield from _shrunk(asked, kinds, set(), clear, config, len(kinds))
    return sorted({at for places in found for at in places}) if found else sorted(gone)


def _shrunk(
    asked: _Deletions, items: list[list[int]], always: set[int], clear: float, config: PurgeConfig, most: int
) -> Generator[list[Text], list[float], list[list[int]] | None]:
    """The fewest items without which, and without what is `always` left out, the excess is at most `clear`."""
    if not items:
        return []
    testing = shrinking(items, most=most, width=config.width)
    selections = next(testing)
    while True:
        values = yield [asked.without(always.union(*selection)) for selection in selections]
        try:
            selections = testing.send([value <= clear for value in values])
        except StopIteration as end:
            found: list[list[int]] | None = end.value
            return found
