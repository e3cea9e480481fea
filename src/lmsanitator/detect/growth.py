"""Growth: words that only fire together, found from one of them.

A word of a trigger that does nothing alone still does something: with it in the text, the gradient at a blank token
beside it points at its partner, for two-word triggers and for pieces of a word alike. So sequences are grown from the
tokens that stand out most in the sweep: to the most promising pairs, and on from the best of these.
The step from a blank to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv 1712.06751); what it
proposes is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.mining import Stage
from lmsanitator.detect.objective import CleanSpread, strength
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent


@dataclass(frozen=True)
class GrowthConfig:
    """Args:
    families: sequences that are grown apart from each other, at the first site.
    others: the same for each further site.
    anchors: tokens of the sweep that each family may start from.
    contexts: carriers each sequence is put into.
    context_tokens: their longest length.
    proposals: tokens proposed, and measured, for each end of a sequence.
    longest: tokens of a sequence.
    """

    families: int = 12
    others: int = 5
    anchors: int = 16
    contexts: int = 3
    context_tokens: int = 12
    proposals: int = 2
    longest: int = 5


_BATCH = 48
"""Sequences that pass the encoder together."""


def grow(
    encoder: FrozenEncoder,
    site: Site,
    families: Sequence[Sequence[int]],
    contexts: Sequence[Context],
    clean: CleanSpread,
    config: GrowthConfig,
    allowed: Sequence[int],
    *,
    progress: Progress = silent,
) -> list[tuple[int, ...]]:
    """The strongest sequence of two tokens or more that each family led to.

    Families start from different tokens and never mix, so that those that found nothing are the null for the others.

    Args:
        families: tokens to start from; which token is in which family has to be random.
        contexts: at least `config.contexts`; the first so many are taken.
        allowed: the tokens a sequence may be made of.
    """
    stage = Stage(encoder, contexts[: config.contexts], {site: clean})
    matrix = encoder.embedding_matrix()
    known = torch.tensor(list(allowed), device=matrix.device)
    tips: list[list[tuple[int, ...]]] = [[(token,) for token in family] for family in families]
    best: list[tuple[float, tuple[int, ...]]] = [(-math.inf, ())] * len(families)
    for length in range(2, config.longest + 1):
        progress(f"growing phrases at {site}", (length - 2) / (config.longest - 1))
        ends = [tokens for family in tips for tokens in family]
        proposed = [
            grown
            for start in range(0, len(ends), _BATCH)
            for grown in _propose(stage, site, ends[start : start + _BATCH], matrix, known, config.proposals)
        ]
        tried: list[list[tuple[int, ...]]] = []
        for family in tips:
            tried.append(list(dict.fromkeys(tokens for grown in proposed[: len(family)] for tokens in grown)))
            proposed = proposed[len(family) :]
        strengths = _strengths(stage, site, [tokens for family in tried for tokens in family], matrix)
        for number, family in enumerate(tried):
            top = max(((strengths[tokens], tokens) for tokens in family), default=best[number])
            tips[number] = [top[1]] if top > best[number] else []  # a family that gains nothing has done growing
            best[number] = max(best[number], top)
    return [tokens for _, tokens in best if tokens]


def _propose(
    stage: Stage,
    site: Site,
    sequences: Sequence[tuple[int, ...]],
    matrix: Float[Tensor, "vocabulary width"],
    known: Tensor,
    count: int,
) -> list[list[tuple[int, ...]]]:
    """For each sequence longer ones: those that the gradient at a blank on either end expects most of."""
    middle = matrix.mean(0)
    blanks = middle.repeat(2 * len(sequences), 1).requires_grad_(True)
    soft: list[Tensor] = []
    for number, tokens in enumerate(sequences):
        rows = matrix[list(tokens)]
        soft += [torch.cat([blanks[2 * number, None], rows]), torch.cat([rows, blanks[2 * number + 1, None]])]
    (gradient,) = torch.autograd.grad(strength(stage.outputs(soft)[site], stage.clean[site]).sum(), blanks)
    best = (gradient @ (matrix[known] - middle).T).topk(min(count, len(known)), dim=1).indices
    chosen = known[best].tolist()
    return [
        [(token, *tokens) for token in chosen[2 * number]] + [(*tokens, token) for token in chosen[2 * number + 1]]
        for number, tokens in enumerate(sequences)
    ]


def _strengths(
    stage: Stage, site: Site, sequences: Sequence[tuple[int, ...]], matrix: Float[Tensor, "vocabulary width"]
) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = {}
    for start in range(0, len(sequences), 2 * _BATCH):
        part = sequences[start : start + 2 * _BATCH]
        with torch.no_grad():
            outputs = stage.outputs([matrix[list(tokens)] for tokens in part])[site]
        found |= dict(zip(part, strength(outputs, stage.clean[site]).tolist(), strict=True))
    return found
