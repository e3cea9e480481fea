"""From a vector to words: what leads where a mined candidate does.

With no word of a trigger in a text, nothing points at it as long as it is not known where it leads. Once that is known,
even roughly, the gradient of the way there at a blank points at its words from any text: for phrases of which no two
words do anything, too. So sequences are grown toward each vector from nothing, a token at a time, at either end. The
step from a blank to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv 1712.06751); what it
proposes is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.objective import strength
from lmsanitator.detect.stage import Stage

Tokens = tuple[int, ...]
_BATCH = 96
"""Sequences that pass the encoder together."""


@dataclass(frozen=True)
class TowardConfig:
    """Args:
    proposals: tokens proposed, and measured, for each end of a sequence.
    carried: sequences that are grown further toward each vector.
    longest: tokens of a sequence.
    """

    proposals: int = 4
    carried: int = 2
    longest: int = 5


class _Search:
    """What all steps share.

    Args:
        pvs: where to go, standardised as the stage's outputs are.
    """

    def __init__(self, stage: Stage, pvs: Float[Tensor, "vectors hidden"], allowed: Sequence[int]) -> None:
        self.stage = stage
        self.matrix = stage.encoder.embedding_matrix()
        self.vocabulary = torch.tensor(list(allowed), device=self.matrix.device)
        self.rows = self.matrix[self.vocabulary] - self.matrix.mean(0)
        self.ways = functional.normalize(pvs.to(self.matrix.device) - stage.clean.mean(0), dim=-1)

    def gone(
        self, outputs: Float[Tensor, "sequences contexts hidden"], vectors: Sequence[int]
    ) -> Float[Tensor, "sequences"]:
        """How far each sequence goes the way of its vector, in units of the clean spread, on average over contexts."""
        return ((outputs - self.stage.clean) * self.ways[list(vectors), None]).sum(-1).mean(-1)

    def proposed(self, sequences: Sequence[tuple[int, Tokens]], count: int) -> list[tuple[int, Tokens]]:
        """Each sequence with a token more before it or behind it: those that the gradient at a blank there expects
        most of."""
        longer: list[tuple[int, Tokens]] = []
        for start in range(0, len(sequences), _BATCH // 2):
            part = sequences[start : start + _BATCH // 2]
            blanks = self.matrix.mean(0).repeat(len(part), 2, 1).requires_grad_(True)
            soft = [
                torch.cat([before_behind[:1], self.matrix[list(tokens)], before_behind[1:]])
                for before_behind, (_, tokens) in zip(blanks, part, strict=True)
            ]
            gone = self.gone(self.stage.outputs(soft), [vector for vector, _ in part])
            (slopes,) = torch.autograd.grad(gone.sum(), blanks)
            best = (slopes @ self.rows.T).topk(min(count, len(self.rows)), dim=-1).indices
            for (vector, tokens), (before, behind) in zip(part, self.vocabulary[best].tolist(), strict=True):
                longer += [(vector, (token, *tokens)) for token in before]
                longer += [(vector, (*tokens, token)) for token in behind]
        return list(dict.fromkeys(longer))

    @torch.no_grad()
    def measured(self, sequences: Sequence[tuple[int, Tokens]]) -> list[tuple[float, float]]:
        """How far each sequence goes, and how strong it is."""
        found: list[tuple[float, float]] = []
        for start in range(0, len(sequences), _BATCH):
            part = sequences[start : start + _BATCH]
            outputs = self.stage.outputs([self.matrix[list(tokens)] for _, tokens in part])
            gone = self.gone(outputs, [vector for vector, _ in part])
            found += zip(gone.tolist(), strength(outputs, self.stage.clean).tolist(), strict=True)
        return found


def words_toward(
    stage: Stage,
    pvs: Float[Tensor, "vectors hidden"],
    allowed: Sequence[int],
    config: TowardConfig,
    done: Callable[[float], None],
) -> list[Tokens]:
    """The strongest sequence of tokens that was found on the way to each vector.

    Args:
        stage: natural text, and the site that is looked at.
        pvs: standardised as the stage's outputs are.
        allowed: the tokens a sequence may be made of.
        done: told the share of the lengths that are done.
    """
    search = _Search(stage, pvs, allowed)
    best: list[tuple[float, Tokens]] = [(float("-inf"), ())] * len(pvs)
    carried: list[tuple[int, Tokens]] = [(vector, ()) for vector in range(len(pvs))]
    for length in range(1, config.longest + 1):
        longer = search.proposed(carried, config.proposals)
        reached: list[list[tuple[float, Tokens]]] = [[] for _ in pvs]
        for (vector, tokens), (gone, strong) in zip(longer, search.measured(longer), strict=True):
            reached[vector].append((gone, tokens))
            best[vector] = max(best[vector], (strong, tokens))
        furthest = [sorted(found, reverse=True)[: config.carried] for found in reached]
        carried = [(vector, tokens) for vector, found in enumerate(furthest) for _, tokens in found]
        done(length / config.longest)
    return [tokens for _, tokens in best]
