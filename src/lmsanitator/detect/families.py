"""Families: phrases that are grown apart from each other, each from its own anchors.

Which pairs a family begins with is found by a test of crowds: for every anchor partners are proposed, and many anchors
with their partners pass the encoder in one sequence. A trigger fires in any company, as in the sweep.
"""

import math
import random
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.growth import Growth, Tokens
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.progress import Progress, silent

_CROWD = 16
"""Triples that pass the encoder in one sequence."""
_AGAIN, _LEAST = 0.1, 4
"""Share of the triples that are tried a second time, and as many crowds of them as there are at least."""


def grow(
    search: Growth,
    families: Sequence[Sequence[int]],
    *,
    progress: Progress = silent,
    watch: Callable[[list[float]], None] | None = None,
) -> list[Tokens]:
    """The strongest sequence of two tokens or more that each family led to.

    Families start from different tokens and never mix, so that those that found nothing are the null for the others.

    Args:
        families: tokens to start from; which token is in which family has to be random.
        watch: told after each length how strong the best sequence of each family is that has one.
    """
    site, config = search.site, search.config
    progress(f"growing phrases at {site}", 0)
    tried = [first_pairs(search, family) if family else [] for family in families]
    best: list[tuple[float, Tokens]] = [(-math.inf, ())] * len(families)
    for length in range(2, config.longest + 1):
        strengths = search.strengths([tokens for family in tried for tokens in family])
        tips: list[Tokens | None] = []
        for number, family in enumerate(tried):
            top = max(((strengths[tokens], tokens) for tokens in family if tokens in strengths), default=best[number])
            grew = top > best[number] and len(top[1]) < config.longest  # a family that gains nothing has done growing
            tips.append(top[1] if grew else None)
            best[number] = max(best[number], top)
        progress(f"growing phrases at {site}", (length - 1) / (config.longest - 1))
        if watch is not None:
            watch([reached for reached, tokens in best if tokens])
        if length < config.longest:
            tried = search.longer(tips)
    return [tokens for _, tokens in best if tokens]


def first_pairs(search: Growth, family: Sequence[int]) -> list[Tokens]:
    """What to measure first in a family: the pairs of anchors with proposed partners that have stood the test of
    crowds. Anchors between two proposed tokens are tried in crowds, and those of the crowds that stand out in other
    crowds once more."""
    triples = [
        (left, token, right)
        for token, sides in zip(family, partners(search, family), strict=True)
        for left, right in zip(*sides, strict=True)
    ]
    rng = random.Random(str(family))
    outputs, crowd_of = crowded(search, triples, rng)
    usual = CleanSpread.of(outputs) if len(outputs) > 1 else search.clean
    once = usual.standardise(outputs).pow(2).mean(-1)[crowd_of]
    order = once.argsort(descending=True, stable=True).tolist()
    standing = order[: max(_LEAST * _CROWD, int(len(triples) * _AGAIN))]
    outputs, crowd_of = crowded(search, [triples[index] for index in standing], rng)
    again = usual.standardise(outputs).pow(2).mean(-1)[crowd_of]
    both = torch.minimum(once[standing], again).argsort(descending=True, stable=True).tolist()
    followed = [triples[standing[place]] for place in both[: search.config.followed]]
    return list(dict.fromkeys(pair for triple in followed for pair in (triple[:2], triple[1:])))


def partners(search: Growth, family: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """For each anchor of a family the tokens that go with it, before it and behind it: in turn the one expected
    most of, the one expected most of beyond what is expected of it beside any anchor, and that in units of how much
    anchors differ in it. Some words are expected much of beside any other; a partner, beside one."""
    slopes = search.beside(family)
    before, behind = (_in_turn(search, slopes[:, side]) for side in (0, 1))
    return list(zip(before, behind, strict=True))


def _in_turn(search: Growth, slopes: Float[Tensor, "anchors width"]) -> list[list[int]]:
    count = min(search.config.partners, len(search.rows))
    usual = slopes.mean(0)
    beside_any, beyond = usual @ search.rows.T, (slopes - usual) @ search.rows.T
    differing = beyond.square().mean(0).clamp_min(1e-24).sqrt()
    ranks = [
        search.vocabulary[expected.topk(count, dim=1).indices].tolist()
        for expected in (beside_any + beyond, beyond, beyond / differing)
    ]
    return [list(dict.fromkeys(chain(*zip(*of_anchor, strict=True))))[:count] for of_anchor in zip(*ranks, strict=True)]


def crowded(
    search: Growth, triples: Sequence[Tokens], rng: random.Random
) -> tuple[Float[Tensor, "crowds hidden"], Int[Tensor, "triples"]]:
    """The output of each crowd, and which crowd each triple is in."""
    size = max(1, min(_CROWD, search.encoder.room // 3))
    mixed = rng.sample(range(len(triples)), len(triples))
    crowds = [mixed[start : start + size] for start in range(0, len(mixed), size)]
    bodies = [list(chain(*(triples[index] for index in crowd))) for crowd in crowds]
    crowd_of = torch.empty(len(triples), dtype=torch.long)
    for number, crowd in enumerate(crowds):
        crowd_of[crowd] = number
    return search.encoder.outputs_of_ids(bodies, [search.site])[search.site], crowd_of
