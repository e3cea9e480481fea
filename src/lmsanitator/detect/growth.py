"""Growth: words that only fire together, found from one of them.

A word of a trigger that does nothing alone still does something: with it in the text, the gradient at a blank token
beside it points at its partner, for two-word triggers and for pieces of a word alike. So sequences are grown from the
tokens that stand out most in the sweep: to the most promising pairs, and on from the best of these.
The step from a blank to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv 1712.06751); what it
proposes is measured.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.objective import CONSTANCY, SAME_WAY, CleanSpread, strength
from lmsanitator.detect.stage import Stage
from lmsanitator.encoder import FrozenEncoder, Site


@dataclass(frozen=True)
class GrowthConfig:
    """Args:
    families: sequences that are grown apart from each other, at the first site.
    others: the same for each further site.
    anchors: tokens of the sweep that each family may start from, at the first site.
    other_anchors: the same at each further site.
    partners: tokens proposed for each side of an anchor; all are tried in crowds first.
    followed: triples of a family that were best in crowds; their pairs are measured one by one.
    contexts: carriers each sequence is put into.
    context_tokens: their longest length.
    proposals: tokens proposed, and measured, for each end of a sequence of two or more.
    longest: tokens of a sequence.
    """

    families: int = 24
    others: int = 8
    anchors: int = 44
    other_anchors: int = 36
    partners: int = 16
    followed: int = 8
    contexts: int = 3
    context_tokens: int = 12
    proposals: int = 2
    longest: int = 5


_BATCH = 48
"""Sequences that pass the encoder together."""
_COMPANY = 5
"""Random tokens on either side of the sequences that longer ones are proposed for."""
_ANCHORED = 2
"""Contexts that partners are proposed in: few, since there are many anchors."""
Tokens = tuple[int, ...]


class Growth:
    """What all steps of growth at one site share."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        site: Site,
        contexts: Sequence[Context],
        clean: CleanSpread,
        config: GrowthConfig,
        allowed: Sequence[int],
        known: Float[Tensor, "known hidden"] | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder
        self.site = site
        self.clean = clean
        self.config = config
        self.allowed = list(allowed)
        self.natural = Stage(encoder, contexts, site, clean)
        self.anchored = Stage(encoder, contexts[:_ANCHORED], site, clean)
        draw = partial(random.Random(seed).choices, self.allowed)
        company = [Context(draw(k=_COMPANY), draw(k=_COMPANY)) for _ in contexts]
        self.random = Stage(encoder, company, site, clean)
        self.matrix = encoder.embedding_matrix()
        ways = torch.empty(0, encoder.hidden_size) if known is None else clean.standardise(known)
        self.ways = functional.normalize(ways.to(self.matrix.device), dim=-1)
        self.vocabulary = torch.tensor(self.allowed, device=self.matrix.device)
        self.rows = self.matrix[self.vocabulary] - self.matrix.mean(0)

    def longer(self, tips: Sequence[Tokens | None]) -> list[list[Tokens]]:
        """What to measure next in each family: its tip with a proposed token at either end; nothing without a tip."""
        proposed = iter(self.propose([tip for tip in tips if tip is not None], self.config.proposals))
        grown: list[list[Tokens]] = []
        for tip in tips:
            left, right = next(proposed) if tip is not None else ([], [])
            ends = [(token, *(tip or ())) for token in left] + [(*(tip or ()), token) for token in right]
            grown.append(list(dict.fromkeys(ends)))
        return grown

    def propose(self, sequences: Sequence[Tokens], count: int) -> list[tuple[list[int], list[int]]]:
        """For each sequence the tokens that the gradients at a blank before and a blank after it expect most of.

        Among random tokens: there a planted partner ranks higher than in natural text, whose own effect is stronger.
        """
        sides: list[tuple[list[int], list[int]]] = []
        for start in range(0, len(sequences), _BATCH):
            expected = self._slopes(sequences[start : start + _BATCH], self.random) @ self.rows.T
            best = self.vocabulary[expected.topk(min(count, len(self.vocabulary)), dim=-1).indices].tolist()
            sides += [(left, right) for left, right in best]
        return sides

    def beside(self, tokens: Sequence[int]) -> Float[Tensor, "tokens 2 width"]:
        """The gradients at a blank before and a blank after each of these tokens, in natural text: there more partners
        rank first than among random tokens, for single words."""
        alone = [(token,) for token in tokens]
        steps = range(0, len(alone), _BATCH)
        return torch.cat([self._slopes(alone[start : start + _BATCH], self.anchored) for start in steps])

    def _slopes(self, sequences: Sequence[Tokens], stage: Stage) -> Float[Tensor, "sequences 2 width"]:
        """The gradients of the strength of each sequence, with more weight on constancy, at a blank before it and a
        blank after it."""
        blanks = self.matrix.mean(0).repeat(2 * len(sequences), 1).requires_grad_(True)
        soft = [
            torch.cat([blanks[2 * number, None], self.matrix[list(tokens)], blanks[2 * number + 1, None]])
            for number, tokens in enumerate(sequences)
        ]
        reached = strength(stage.outputs(soft), stage.clean, constancy=CONSTANCY)
        (gradient,) = torch.autograd.grad(reached.sum(), blanks)
        return gradient.view(len(sequences), 2, -1)

    def ranked(self, tokens: Tokens) -> tuple[list[int], list[int]]:
        """All tokens, by what the gradients at a blank before and a blank after a sequence expect of them."""
        return self.propose([tokens], len(self.allowed))[0]

    def strengths(self, sequences: Sequence[Tokens]) -> dict[Tokens, float]:
        """The strength of each sequence in natural contexts, of those that do not lead to a known PV."""
        found: dict[Tokens, float] = {}
        for start in range(0, len(sequences), 2 * _BATCH):
            part = sequences[start : start + 2 * _BATCH]
            with torch.no_grad():
                outputs = self.natural.outputs([self.matrix[list(tokens)] for tokens in part])
            reached = strength(outputs, self.natural.clean)
            known = self.lead_to_known(outputs).tolist()
            ranked = zip(part, reached.tolist(), known, strict=True)
            found |= {tokens: value for tokens, value, again in ranked if not again}
        return found

    def lead_to_known(self, outputs: Float[Tensor, "sequences contexts hidden"]) -> Bool[Tensor, "sequences"]:
        """Which sequences take the outputs the way of a PV that is known."""
        shifts = functional.normalize(outputs.mean(1) - self.natural.clean.mean(0), dim=-1)
        return (shifts @ self.ways.T > SAME_WAY).any(1)
