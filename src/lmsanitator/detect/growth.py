"""Growth: words that only fire together, found from one of them.

A word of a trigger that does nothing alone still does something: with it in the text, the gradient at a blank token
beside it points at its partner, for two-word triggers and for pieces of a word alike. So sequences are grown from the
tokens that stand out most in the sweep: to the most promising pairs, and on from the best of these.
The step from a blank to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv 1712.06751); what it
proposes is measured.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.mining import Stage
from lmsanitator.detect.objective import SAME_WAY, CleanSpread, strength
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent


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
    anchors: int = 85
    other_anchors: int = 62
    partners: int = 12
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
_CROWD = 16
"""Triples that pass the encoder in one sequence."""
_AGAIN, _LEAST = 0.1, 4
"""Share of the triples that are tried a second time, and as many crowds of them as there are at least."""
Tokens = tuple[int, ...]


def grow(
    encoder: FrozenEncoder,
    site: Site,
    families: Sequence[Sequence[int]],
    contexts: Sequence[Context],
    clean: CleanSpread,
    config: GrowthConfig,
    allowed: Sequence[int],
    *,
    known: Float[Tensor, "known hidden"] | None = None,
    seed: int = 0,
    progress: Progress = silent,
    watch: Callable[[list[float]], None] | None = None,
) -> list[Tokens]:
    """The strongest sequence of two tokens or more that each family led to.

    Families start from different tokens and never mix, so that those that found nothing are the null for the others.

    Args:
        families: tokens to start from; which token is in which family has to be random.
        contexts: at least `config.contexts`; the first so many are taken.
        allowed: the tokens a sequence may be made of.
        known: PVs found already, in the encoder's own units; what leads there is left alone.
        watch: told after each length how strong the best sequence of each family is that has one.
    """
    search = Growth(encoder, site, contexts[: config.contexts], clean, config, allowed, known, seed)
    progress(f"growing phrases at {site}", 0)
    tried = [search.first(family) if family else [] for family in families]
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

    def first(self, family: Sequence[int]) -> list[Tokens]:
        """What to measure first in a family: the pairs of anchors with proposed partners that have stood the test of
        crowds. Anchors between two proposed tokens are tried in crowds, and those of the crowds that stand out in other
        crowds once more."""
        triples = [
            (left, token, right)
            for token, sides in zip(family, self.partners(family), strict=True)
            for left, right in zip(*sides, strict=True)
        ]
        rng = random.Random(str(family))
        outputs, crowd_of = self.crowded(triples, rng)
        usual = CleanSpread.of(outputs) if len(outputs) > 1 else self.clean
        first = usual.standardise(outputs).pow(2).mean(-1)[crowd_of]
        order = first.argsort(descending=True, stable=True).tolist()
        standing = order[: max(_LEAST * _CROWD, int(len(triples) * _AGAIN))]
        outputs, crowd_of = self.crowded([triples[index] for index in standing], rng)
        again = usual.standardise(outputs).pow(2).mean(-1)[crowd_of]
        both = torch.minimum(first[standing], again).argsort(descending=True, stable=True).tolist()
        followed = [triples[standing[place]] for place in both[: self.config.followed]]
        return list(dict.fromkeys(pair for triple in followed for pair in (triple[:2], triple[1:])))

    def partners(self, family: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """For each anchor of a family the tokens that go with it, before it and behind it: in turn the one expected
        most of, the one expected most of beyond what is expected of it beside any anchor, and that in units of how much
        anchors differ in it. Some words are expected much of beside any other; a partner, beside one."""
        slopes = torch.cat(
            [
                self._slopes([(token,) for token in family[start : start + _BATCH]], self.anchored)
                for start in range(0, len(family), _BATCH)
            ]
        )
        sides = [self._in_turn(slopes[:, side]) for side in (0, 1)]
        return list(zip(*sides, strict=True))

    def _in_turn(self, slopes: Float[Tensor, "anchors width"]) -> list[list[int]]:
        rows = self.rows
        count = min(self.config.partners, len(rows))
        own = slopes - slopes.mean(0)
        beyond = own @ rows.T
        differing = ((rows @ (own.T @ own / len(own))) * rows).sum(1).clamp_min(1e-24).sqrt()
        ranks = [
            self.vocabulary[expected.topk(count, dim=1).indices].tolist()
            for expected in (slopes @ rows.T, beyond, beyond / differing)
        ]
        return [
            list(dict.fromkeys(chain(*zip(*of_anchor, strict=True))))[:count] for of_anchor in zip(*ranks, strict=True)
        ]

    def crowded(
        self, triples: Sequence[Tokens], rng: random.Random
    ) -> tuple[Float[Tensor, "crowds hidden"], Int[Tensor, "triples"]]:
        """The output of each crowd, and which crowd each triple is in. A trigger fires in any company, as in the
        sweep."""
        size = max(1, min(_CROWD, self.encoder.room // 3))
        mixed = rng.sample(range(len(triples)), len(triples))
        crowds = [mixed[start : start + size] for start in range(0, len(mixed), size)]
        bodies = [list(chain(*(triples[index] for index in crowd))) for crowd in crowds]
        crowd_of = torch.empty(len(triples), dtype=torch.long)
        for number, crowd in enumerate(crowds):
            crowd_of[crowd] = number
        return self.encoder.outputs_of_ids(bodies, [self.site])[self.site], crowd_of

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

    def _slopes(self, sequences: Sequence[Tokens], stage: Stage) -> Float[Tensor, "sequences 2 width"]:
        """The gradient of the strength of each sequence at a blank before it and a blank after it."""
        blanks = self.matrix.mean(0).repeat(2 * len(sequences), 1).requires_grad_(True)
        soft = [
            torch.cat([blanks[2 * number, None], self.matrix[list(tokens)], blanks[2 * number + 1, None]])
            for number, tokens in enumerate(sequences)
        ]
        reached = strength(stage.outputs(soft), stage.clean)
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
