"""From mined vectors and the sweep's outliers to words that fire.

A backdoor fires in any company, so a pair of words can be looked for by standing *all* pairs of a pool of words
together, many at a time (`cover_pairs`), and asking which group lands on the PV. The pool is what the mined mixture
puts weight on. What fires is then shrunk to the fewest words (`text.shrink`) and has to replay in fresh natural text.
"""

import itertools
import random
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import PHRASE
from lmsanitator.detect.mining import Candidate
from lmsanitator.detect.objective import CleanSpread, covered
from lmsanitator.detect.replay import HALFWAY, REPLAYS, Evidence, Replayer
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


def join(replayer: Replayer, site: Site, parts: Sequence[int], *, rounds: int = 3) -> Evidence | None:
    """Join the sweep's outliers, greedily and in either order, into the shortest sequence that replays everywhere.

    For words of several pieces, each of which moves the output a little while only the whole word fires.
    """
    best = max(replayer.measure([(part,) for part in parts])[site], key=lambda item: item.strength, default=None)
    for _ in range(rounds):
        if best is None or best.replay_rate == 1:
            return best
        grown = [order for part in parts for order in ((part, *best.tokens), (*best.tokens, part))]
        longer = max(replayer.measure(grown)[site], key=lambda item: item.strength)
        if longer.strength <= best.strength:
            break
        best = longer
    return best if best is not None and best.replay_rate == 1 else None


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

    def replays(selections: list[list[int]]) -> list[bool]:
        return [item.replay_rate >= REPLAYS for item in replayer.measure(selections)[site]]

    if replays([list(tokens)])[0]:
        tokens = shrink(tokens, replays, most=len(tokens)) or tokens
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
