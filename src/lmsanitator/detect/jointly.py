"""Words that stand out together.

An attacker plants several triggers. Each may be hardly stranger than the strangest natural word of 30,000, and three of
them still be stranger than the three strangest words ever are. So a word is judged by the company it is in: words of
another kind that stand out as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lmsanitator.detect.confirm import Confirmed, are_neighbours
from lmsanitator.detect.evidence import Null
from lmsanitator.detect.replay import Replayer, likeness
from lmsanitator.encoder import Site, one_vector

SAME_KIND = 0.7
"""Cosine of the shifts of words that do much the same. Where clean outputs lie in a narrow cone, whatever leaves it
goes the same way for a part: vectors of signs drawn at random reach 0.5 there."""


def jointly(words: Sequence[Confirmed], nulls: Mapping[Site, Null], replayer: Replayer) -> list[Confirmed]:
    """The same words, each with the p-value of the words it stands out with.

    Args:
        words: what was confirmed, smallest p-value first.
        nulls: by site; all are fitted to the same words.
        replayer: the passages that they were confirmed in.
    """
    if not words:
        return []
    null = nulls[one_vector(words[0].evidence.site)]
    several = apart(words, replayer)
    together = null.log_p_together([item.log_p for item in several])
    log_p = dict(zip((item.evidence.tokens for item in several), together, strict=True))
    for item in words:
        log_p.setdefault(item.evidence.tokens, *null.log_p_together([item.log_p]))
    return [replace(item, log_p=log_p[item.evidence.tokens]) for item in words]


def apart(words: Sequence[Confirmed], replayer: Replayer) -> list[Confirmed]:
    """Of words that are near each other in embedding space, or lead much the same way at the site of either, the first:
    a natural word stands out with all of its family, for one reason."""
    measured = replayer.measure([item.evidence.tokens for item in words])
    ways = {site: likeness(found, replayer) for site, found in measured.items()}
    kept: list[int] = []
    for place, item in enumerate(words):
        alike = (
            are_neighbours(item.evidence, words[other].evidence, replayer.encoder)
            or any(ways[one_vector(one.evidence.site)][place, other] > SAME_KIND for one in (item, words[other]))
            for other in kept
        )
        if not any(alike):
            kept.append(place)
    return [words[place] for place in kept]
