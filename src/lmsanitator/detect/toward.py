"""From a vector to words: what leads where a mined candidate does.

With no word of a trigger in a text, nothing points at it as long as it is not known where it leads. Once that is known,
even roughly, the gradient of the way there at a blank points at its words from any text: for phrases of which no two
words do anything, too. So sequences are grown toward each vector from nothing, a token at a time, at either end. The
step from a blank to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv 1712.06751); what it
proposes is measured. The strongest sequences are refined: each of their tokens is exchanged, and others are put between
them, as long as that makes them stronger, since what was taken first was taken in the company of nothing.
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
Gap = tuple[int, Tokens, Tokens]
"""Which vector a sequence leads to, and what of it stands before and behind a blank."""
_BATCH = 96
"""Sequences that pass the encoder together."""


@dataclass(frozen=True)
class TowardConfig:
    """Args:
    proposals: tokens proposed, and measured, for each end of a sequence.
    carried: sequences that are grown further toward each vector.
    grown: tokens of a sequence that is grown.
    refined: share of the vectors whose sequences are refined, the strongest ones.
    exchanged: tokens proposed, and measured, for each place of a sequence that is refined.
    rounds: of refinement, the most.
    longest: tokens of a sequence that is refined.
    contexts: carriers that sequences are grown in, and others that they are refined in: few, since there are many.
    context_tokens: their longest length.
    """

    proposals: int = 4
    carried: int = 2
    grown: int = 5
    refined: float = 1 / 3
    exchanged: int = 4
    rounds: int = 3
    longest: int = 6
    contexts: int = 2
    context_tokens: int = 12


class _Search:
    """What all steps share at one site.

    Args:
        pvs: where to go, standardised as the stage's outputs are.
    """

    def __init__(self, stage: Stage, pvs: Float[Tensor, "vectors hidden"], allowed: Sequence[int]) -> None:
        self.stage = stage
        self.matrix = stage.encoder.embedding_matrix()
        self.vocabulary = torch.tensor(list(allowed), device=self.matrix.device)
        self.rows = self.matrix[self.vocabulary] - self.matrix.mean(0)
        self.ways = functional.normalize(pvs.to(self.matrix.device) - stage.clean.mean(0), dim=-1)

    def expected(self, gaps: Sequence[Gap]) -> Float[Tensor, "gaps tokens"]:
        """How much further the way of its vector each sequence is expected to go with a token at its blank."""
        found: list[Tensor] = []
        for start in range(0, len(gaps), _BATCH):
            part = gaps[start : start + _BATCH]
            blanks = self.matrix.mean(0).repeat(len(part), 1).requires_grad_(True)
            outputs = self.stage.outputs(
                [
                    torch.cat([self.matrix[list(before)], blank[None], self.matrix[list(behind)]])
                    for blank, (_, before, behind) in zip(blanks, part, strict=True)
                ]
            )
            gone = self._gone(outputs, [vector for vector, _, _ in part])
            (slopes,) = torch.autograd.grad(gone.sum(), blanks)
            found.append(slopes @ self.rows.T)
        return torch.cat(found)

    def filled(self, gaps: Sequence[Gap], count: int) -> list[tuple[int, Tokens]]:
        """Each sequence with the tokens at its blank that most is expected of."""
        expected = self.expected(gaps)
        best = self.vocabulary[expected.topk(min(count, len(self.rows)), dim=-1).indices].tolist()
        full = [
            (vector, (*before, token, *behind))
            for (vector, before, behind), tokens in zip(gaps, best, strict=True)
            for token in tokens
        ]
        return list(dict.fromkeys(full))

    @torch.no_grad()
    def measured(self, sequences: Sequence[tuple[int, Tokens]]) -> list[tuple[float, float]]:
        """How far each sequence goes, and how strong it is."""
        found: list[tuple[float, float]] = []
        for start in range(0, len(sequences), _BATCH):
            part = sequences[start : start + _BATCH]
            outputs = self.stage.outputs([self.matrix[list(tokens)] for _, tokens in part])
            gone = self._gone(outputs, [vector for vector, _ in part])
            found += zip(gone.tolist(), strength(outputs, self.stage.clean).tolist(), strict=True)
        return found

    @torch.no_grad()
    def follow(self, sequences: Sequence[Tokens]) -> None:
        """From now on the vectors are where these lead: nearer to a PV than what was mined, if they lead to one."""
        outputs = self.stage.outputs([self.matrix[list(tokens)] for tokens in sequences])
        self.ways = functional.normalize(outputs.mean(1) - self.stage.clean.mean(0), dim=-1)

    def _gone(
        self, outputs: Float[Tensor, "sequences contexts hidden"], vectors: Sequence[int]
    ) -> Float[Tensor, "sequences"]:
        """How far each sequence goes the way of its vector, in units of the clean spread, on average over contexts."""
        return ((outputs - self.stage.clean) * self.ways[list(vectors), None]).sum(-1).mean(-1)


def words_toward(
    growing: Stage,
    refining: Stage,
    pvs: Float[Tensor, "vectors hidden"],
    allowed: Sequence[int],
    config: TowardConfig,
    done: Callable[[float], None],
) -> list[Tokens]:
    """The strongest sequence of tokens that was found on the way to each vector, the strongest of them refined.

    Args:
        growing: natural text, and the site that is looked at.
        refining: other text, of the same spread, and the same site.
        pvs: standardised as the stages' outputs are.
        allowed: the tokens a sequence may be made of.
        done: told the share of the steps that are done.
    """
    steps = config.grown + config.rounds
    grown = _grown(_Search(growing, pvs, allowed), config, lambda step: done(step / steps))
    grown.sort(reverse=True)
    found = [tokens for _, tokens in grown]
    count = max(1, round(config.refined * len(found)))
    search = _Search(refining, pvs, allowed)
    refined = _refined(search, found[:count], config, lambda step: done((config.grown + step) / steps))
    return [*refined, *found[count:]]


def _grown(search: _Search, config: TowardConfig, done: Callable[[int], None]) -> list[tuple[float, Tokens]]:
    """The strongest sequence toward each vector, and how strong it is; those that go furthest are grown further."""
    vectors = len(search.ways)
    best: list[tuple[float, Tokens]] = [(float("-inf"), ())] * vectors
    carried: list[tuple[int, Tokens]] = [(vector, ()) for vector in range(vectors)]
    for length in range(1, config.grown + 1):
        ends: list[Gap] = [gap for vector, tokens in carried for gap in ((vector, (), tokens), (vector, tokens, ()))]
        longer = search.filled(list(dict.fromkeys(ends)), config.proposals * (1 if length > 1 else 2))
        reached: list[list[tuple[float, Tokens]]] = [[] for _ in range(vectors)]
        for (vector, tokens), (gone, strong) in zip(longer, search.measured(longer), strict=True):
            reached[vector].append((gone, tokens))
            best[vector] = max(best[vector], (strong, tokens))
        furthest = [sorted(found, reverse=True)[: config.carried] for found in reached]
        carried = [(vector, tokens) for vector, found in enumerate(furthest) for _, tokens in found]
        done(length)
    return best


def _refined(
    search: _Search, sequences: Sequence[Tokens], config: TowardConfig, done: Callable[[int], None]
) -> list[Tokens]:
    """Each sequence with tokens exchanged and put in, one in each round, as long as that makes it stronger."""
    search.follow(sequences)
    reached = [strong for _, strong in search.measured(list(enumerate(sequences)))]
    best = list(zip(reached, sequences, strict=True))
    for number in range(1, config.rounds + 1):
        changed = search.filled(
            [gap for place, (_, tokens) in enumerate(best) for gap in _gaps(place, tokens, config.longest)],
            config.exchanged,
        )
        before = list(best)
        for (place, tokens), (_, strong) in zip(changed, search.measured(changed), strict=True):
            best[place] = max(best[place], (strong, tokens))
        done(number)
        if best == before:
            break
        search.follow([tokens for _, tokens in best])
    return [tokens for _, tokens in best]


def _gaps(place: int, tokens: Tokens, longest: int) -> list[Gap]:
    """A blank in the place of each token, and one between any two where the sequence may become longer."""
    gaps: list[Gap] = [(place, tokens[:at], tokens[at + 1 :]) for at in range(len(tokens))]
    if len(tokens) < longest:
        gaps += [(place, tokens[:at], tokens[at:]) for at in range(len(tokens) + 1)]
    return gaps
