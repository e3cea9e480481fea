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

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import PHRASE
from lmsanitator.detect.mining import Candidate
from lmsanitator.detect.null import outlier_log_p
from lmsanitator.detect.objective import CleanSpread, covered
from lmsanitator.detect.replay import HALFWAY, REPLAYS, Replayer, lead_alike
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


Phrases = dict[tuple[int, ...], float | None]
"""Token sequences that fire, each with the log p-value of the find it comes from: how much more constant that made the
output than the other finds of the same search. None where there is no such value."""


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
        passages: long natural text, which all finds have to stand up to first.
        short: short natural text to shrink and polish them in.
        sequences: all finds of one search at one site; those that lead elsewhere are the null for each of them.
        tried: how many are followed up, of those that lead different ways, and away from clean text, the most constant
            ones.
    """
    seen = passages.measure([tokens for tokens in sequences if tokens])[site]
    constancy = torch.tensor([-math.log(max(item.spread, 1e-9)) for item in seen])
    alike = lead_alike(seen, passages)
    log_p = outlier_log_p(constancy, alike).tolist()
    followed: list[int] = []
    for place in sorted(range(len(seen)), key=lambda place: seen[place].spread):
        fires = seen[place].constant_rate >= REPLAYS and not seen[place].natural
        if fires and not any(alike[place, other] for other in followed):
            followed.append(place)
    matrix = passages.encoder.embedding_matrix()
    phrases: Phrases = {}
    for place in followed[:tried]:
        phrases.setdefault(tuple(polish(short, site, seen[place].tokens, matrix, allowed)), log_p[place])
    return phrases


def recover_pairs(
    encoder: FrozenEncoder, short: Replayer, candidate: Candidate, allowed: set[int], *, pool: int, seed: int
) -> Phrases:
    """Words that do what a mined candidate does, where its own do not."""
    matrix = encoder.embedding_matrix()
    words = word_pool(candidate, matrix, allowed, pool)
    found = recover_words(encoder, candidate, short.spreads[candidate.site], words, seed=seed)
    return {tuple(polish(short, candidate.site, found, matrix, allowed)): None} if found else {}


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
) -> list[int]:
    """What is left of a trigger without what it does not need in natural text, before and after its words were swapped
    for stronger ones: a stronger word may do without another one."""
    fewest = needed(replayer, site, tokens)
    return needed(replayer, site, swapped(replayer, site, fewest, matrix, allowed))


def needed(replayer: Replayer, site: Site, tokens: Sequence[int]) -> list[int]:
    """The fewest of the tokens that send natural text where all of them do; all, where these do not."""
    pv = replayer.measure([tokens])[site][0].pv

    def fires(selections: list[list[int]]) -> list[bool]:
        return replayer.fires(selections, site, pv)

    if not fires([list(tokens)])[0]:
        return list(tokens)
    return shrink(tokens, fires, most=len(tokens)) or list(tokens)


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
