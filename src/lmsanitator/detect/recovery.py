"""From finds to triggers: what makes the output constant among the finds of a search, shrunk to the words it needs.

What fires is shrunk to the fewest words (`text.shrink`), its words are swapped for stronger ones next to them in
embedding space, and it has to replay in fresh natural text.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.evidence import REPLAYS
from lmsanitator.detect.null import outlier_log_p
from lmsanitator.detect.replay import Replayer, lead_alike, leads_between
from lmsanitator.encoder import Site
from lmsanitator.text import shrink

Phrases = dict[tuple[int, ...], float]
"""Token sequences that fire, each with the log p-value of the find it comes from: how much more constant that made the
output than the other finds of the same search."""


def prove(
    passages: Replayer,
    short: Replayer,
    site: Site,
    sequences: Sequence[tuple[int, ...]],
    allowed: set[int],
    *,
    tried: int,
) -> Phrases:
    """What is left of the finds of a search, each shrunk to the fewest tokens that do the same.

    Args:
        passages: long natural text, which all finds have to stand up to first, and what is left of them too.
        short: short natural text to look for stronger words in.
        sequences: all finds of one search at one site; those that lead elsewhere are the null for each of them. What
            was found twice counts once: it is no second sample of the null.
        tried: how many are followed up, of those that lead different ways, and away from clean text, the most constant
            ones.
    """
    seen = passages.measure([tokens for tokens in dict.fromkeys(sequences) if tokens])[site]
    constancy = torch.tensor([-math.log(max(item.spread, 1e-9)) for item in seen])
    alike = lead_alike(seen, passages)
    log_p = outlier_log_p(constancy, alike).tolist()
    followed: list[int] = []
    for place in sorted(range(len(seen)), key=lambda place: seen[place].spread):
        if seen[place].fires and not leads_between(seen[place], [seen[other] for other in followed], passages):
            followed.append(place)
    matrix = passages.encoder.embedding_matrix
    phrases: Phrases = {}
    for place in followed[:tried]:
        phrases.setdefault(tuple(polish(passages, short, site, seen[place].tokens, matrix, allowed)), log_p[place])
    return phrases


def polish(
    passages: Replayer,
    short: Replayer,
    site: Site,
    tokens: Sequence[int],
    matrix: Float[Tensor, "vocabulary width"],
    allowed: set[int],
) -> list[int]:
    """What is left of a trigger without what it does not need in long natural text, before and after its words were
    swapped for stronger ones: a stronger word may do without another one. What is stronger in short text alone is not
    taken."""
    fewest = needed(passages, site, tokens)
    stronger = swapped(short, site, fewest, matrix, allowed)
    if stronger == fewest:
        return fewest
    before, after = passages.measure([fewest, stronger])[site]
    return fewest if after.constant_rate < before.constant_rate else needed(passages, site, stronger)


def needed(replayer: Replayer, site: Site, tokens: Sequence[int]) -> list[int]:
    """The fewest of the tokens that send natural text to the one place where all of them do, and as often; all, if
    these do not replay.

    What fires less often than the find itself would hardly stand up to other text.
    """
    (whole,) = replayer.measure([tokens])[site]
    if whole.constant_rate < REPLAYS:
        return list(tokens)

    def do_the_same(selections: list[list[int]]) -> list[bool]:
        found = replayer.measure(selections)[site]
        return [item.constant_rate >= whole.constant_rate and replayer.arrives(item, whole.pv) for item in found]

    return shrink(tokens, do_the_same, most=len(tokens)) or list(tokens)


def swapped(
    replayer: Replayer,
    site: Site,
    tokens: Sequence[int],
    matrix: Float[Tensor, "vocabulary width"],
    allowed: set[int],
    *,
    neighbours: int = 24,
    rounds: int = 3,
) -> list[int]:
    """The tokens with words swapped for their neighbours in embedding space as long as that makes them stronger: what
    recovery finds first is often a neighbour (engines) of the planted word."""
    centred = functional.normalize(matrix - matrix.mean(0), dim=-1)
    best = replayer.measure([tokens])[site][0]
    for _ in range(rounds):
        swaps: list[list[int]] = []
        for place, token in enumerate(best.tokens):
            near = (centred @ centred[token]).topk(neighbours + 1).indices.tolist()
            swaps += [
                [*best.tokens[:place], other, *best.tokens[place + 1 :]]
                for other in near
                if other in allowed and other != token
            ]
        stronger = max(replayer.measure(swaps)[site], key=lambda item: item.strength, default=best)
        if stronger.strength <= best.strength:
            break
        best = stronger
    return list(best.tokens)
