"""From mined vectors to words that fire.

An annealed candidate mostly *is* its words. Where its words do not fire, others are looked for that send the output
where the soft candidate did: a backdoor fires in any company, so *all* pairs of a pool of words are stood together,
many at a time (`cover_pairs`), and the group that lands on the PV is asked for. The pool is what the mined mixture puts
weight on. What fires is shrunk to the fewest words (`text.shrink`) and has to replay in fresh natural text.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import PHRASE
from lmsanitator.detect.mining import Candidate
from lmsanitator.detect.null import outlier_log_p
from lmsanitator.detect.objective import CleanSpread, covered
from lmsanitator.detect.replay import HALFWAY, REPLAYS, Replayer
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import shrink

LONGEST = PHRASE
"""Words a recovered trigger may have; what cannot be shrunk to so few is not a trigger but a text."""


def word_pool(
    candidate: Candidate, matrix: Float[Tensor, "vocabulary width"], allowed: set[int], size: int
) -> list[int]:
    """The vocabulary entries a mined candidate points at: weight in its mixtures, nearness to its soft tokens."""
    centre = matrix.mean(0)
    near = functional.normalize(candidate.embeddings - centre, dim=-1) @ functional.normalize(matrix - centre, dim=-1).T
    ranks = [near.amax(0).argsort(descending=True).tolist()]
    if candidate.weights is not None:
        ranks.insert(0, candidate.weights.amax(0).argsort(descending=True).tolist())
    mixed = dict.fromkeys(token for pair in zip(*ranks, strict=True) for token in pair if token in allowed)
    return list(itertools.islice(mixed, size))


def cover_pairs(pool: Sequence[int], block: int, seed: int) -> list[list[int]]:
    """Groups of at most two blocks of tokens such that any two tokens of the pool stand together in one of them."""
    blocks = [list(pool[start : start + block]) for start in range(0, len(pool), block)]
    pairs = list(itertools.combinations(blocks, 2)) or [(blocks[0], [])]
    rng = random.Random(seed)
    return [rng.sample([*one, *other], len(one) + len(other)) for one, other in pairs]


@dataclass(frozen=True)
class Recovered:
    """What became of one round of mining at one site."""

    phrases: dict[tuple[int, ...], float | None]
    """The fewest tokens that do what a candidate does, and the log p-value of its own words: how much more constant
    they make the output than the words of the other candidates, which the same search has led to. None where other
    words than its own were found."""
    promising: bool
    """Whether some candidate's own words send natural text to one place: there is something to find."""


def recover(
    encoder: FrozenEncoder,
    passages: Replayer,
    short: Replayer,
    candidates: Sequence[Candidate],
    allowed: set[int],
    *,
    tried: int,
    pool: int,
    seed: int,
) -> Recovered:
    """Words for the candidates of one site.

    Args:
        passages: long natural text, which the words of all candidates have to stand up to first.
        short: short natural text to shrink and polish them in.
        candidates: strongest first.
        tried: how many are followed up.
        pool: words that are tried in pairs where no candidate's own words fire.
    """
    matrix = encoder.embedding_matrix()
    site = candidates[0].site
    own = [tuple(token for token in candidate.tokens if token in allowed) for candidate in candidates]
    seen = passages.measure([tokens for tokens in own if tokens])[site]
    log_p = outlier_log_p(torch.tensor([-math.log(max(item.spread, 1e-9)) for item in seen])).tolist()
    ranked = sorted(zip(seen, log_p, strict=True), key=lambda pair: pair[0].spread)
    promising = [pair for pair in ranked if pair[0].constant_rate >= REPLAYS]
    phrases: dict[tuple[int, ...], float | None] = {}
    for item, value in promising[:tried]:
        phrases.setdefault(tuple(polish(short, site, item.tokens, matrix, allowed)), value)
    if not promising:
        words = word_pool(candidates[0], matrix, allowed, pool)
        found = recover_words(encoder, candidates[0], short.spreads[site], words, seed=seed)
        if found:
            phrases[tuple(polish(short, site, found, matrix, allowed))] = None
    return Recovered(phrases, bool(promising))


def recover_words(
    encoder: FrozenEncoder,
    candidate: Candidate,
    clean: CleanSpread,
    pool: Sequence[int],
    *,
    block: int = 48,
    seed: int = 0,
) -> list[int]:
    """The fewest tokens of the pool that send a group of tokens where the mined candidate goes; [] if none do.

    The group that ends up furthest in the candidate's direction is taken at its word: if it holds a trigger, its
    output *is* the PV (better known than the mined one), and stays there while all other tokens are taken out.
    """
    groups = cover_pairs(pool, min(block, encoder.room // 2), seed)
    outputs = clean.standardise(encoder.outputs_of_ids(groups, [candidate.site])[candidate.site])
    usual = outputs.median(0).values
    direction = functional.normalize(clean.standardise(candidate.pv) - usual, dim=-1)
    best = int(((outputs - usual) @ direction).argmax())
    pv = outputs[best]

    def fires(selections: list[list[int]]) -> list[bool]:
        out = clean.standardise(encoder.outputs_of_ids(selections, [candidate.site])[candidate.site])
        return (covered(out, usual.expand_as(out), pv) >= HALFWAY).tolist()

    if not fires([groups[best]])[0]:
        return []
    return shrink(groups[best], fires, most=LONGEST) or []


def polish(
    replayer: Replayer,
    site: Site,
    tokens: Sequence[int],
    matrix: Float[Tensor, "vocabulary width"],
    allowed: set[int],
    *,
    neighbours: int = 24,
    rounds: int = 3,
) -> list[int]:
    """Drop what the trigger does not need in natural text, then swap words for their neighbours in embedding space as
    long as that makes it stronger: what recovery finds first is often a neighbour (engines) of the planted word."""

    pv = replayer.measure([tokens])[site][0].pv

    def fires(selections: list[list[int]]) -> list[bool]:
        return replayer.fires(selections, site, pv)

    if fires([list(tokens)])[0]:
        tokens = shrink(tokens, fires, most=len(tokens)) or tokens
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
