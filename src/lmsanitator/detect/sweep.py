"""The vocabulary sweep: every token is tried, many at a time.

A backdoor fires in any company, so tokens need no carrier of their own: they are shuffled into *groups* that pass the
encoder together, in several rounds with other neighbours each. A trigger sends every group it is in to the same place.
That is a group test: one round costs little more than one forward token per vocabulary entry. In a large group the
effect that an ordinary word has by its meaning fades more than that of a trigger.

The sweep accuses nobody: the tokens that stand out most at each site get a second look (`look`). Words that only fire
together are invisible to it; mining is there for those.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder, Site, side_by_side, typeable
from lmsanitator.progress import Progress, silent


@dataclass(frozen=True)
class SweepConfig:
    """Args:
    rounds: how often each token is tried, in other company each time; at least 2, or there is nothing to agree on. The
        longer the sweep, the more of the tokens picked for a second look are relatives of triggers, and they are to be
        the null for each other (`look`).
    group: tokens that pass the encoder together.
    far: tokens of a site that get a second look because they displace the output most.
    unusual: the same for those that displace it most in directions that clean outputs hardly vary in.
    constant: the same for those whose groups' outputs agree most.
    """

    rounds: int = 3
    group: int = 48
    far: int = 28
    unusual: int = 24
    constant: int = 24


@dataclass(frozen=True)
class SweepResult:
    """What the sweep saw at one site; one row a token in each tensor.

    Displacement: square of the token's own effect on the output, in clean variances (an unbiased estimate, it can be
    slightly negative). Unusual: the same where all directions count as much (`CleanSpread.whitening`): natural words
    displace the outputs of some encoders along a few directions only, a backdoor along any. Spread: how much the
    token's groups still differ, 1 as groups do, 0 for a constant.
    """

    tokens: Int[Tensor, "tokens"]
    displacement: Float[Tensor, "tokens"]
    unusual: Float[Tensor, "tokens"]
    spread: Float[Tensor, "tokens"]
    shortlist: Int[Tensor, "outliers"]
    """Tokens for a second look (`outliers`)."""

    def foremost(self, count: int) -> list[int]:
        """So many tokens that stand out, two by displacement for each one by constancy."""
        ranks = [iter(self.displacement.argsort(descending=True).tolist()), iter(self.spread.argsort().tolist())]
        chosen: dict[int, None] = {}
        while len(chosen) < min(count, len(self.tokens)):
            for ranked in (ranks[0], ranks[0], ranks[1]):
                chosen |= dict.fromkeys(itertools.islice(ranked, 1))
        return self.tokens[list(chosen)[:count]].tolist()


def sweepable(encoder: FrozenEncoder) -> Int[Tensor, "tokens"]:
    """The ids of all tokens that a text may hold."""
    return torch.tensor(typeable(encoder.tokenizer))


def sweep(
    encoder: FrozenEncoder,
    sites: Sequence[Site],
    config: SweepConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[Site, SweepResult]:
    """Try every token of the vocabulary at all `sites` in the same passes."""
    tokens = sweepable(encoder)
    things = [(token,) for token in tokens.tolist()]
    size = min(config.group, encoder.room, max(1, len(tokens) // 8))
    generator = torch.Generator().manual_seed(seed)
    totals = {site: Totals(tokens, encoder.hidden_size, config) for site in sites}
    for number in range(config.rounds):
        tell = partial(_tell, progress, number, config.rounds)
        groups, outputs = one_round(encoder, sites, things, size, generator, tell)
        for site, values in outputs.items():
            totals[site].add(groups, values)
    return {site: of_site.result() for site, of_site in totals.items()}


def _tell(progress: Progress, number: int, rounds: int, done: float) -> None:
    progress("sweeping the vocabulary", (number + done) / rounds)


def one_round(
    encoder: FrozenEncoder,
    sites: Sequence[Site],
    things: Sequence[tuple[int, ...]],
    size: int,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> tuple[Int[Tensor, "groups size"], dict[Site, Float[Tensor, "groups hidden"]]]:
    """Shuffle token sequences into groups of `size`, and put each group through the encoder.

    Returns:
        Which of the things are in each group, and what comes out for it at each site.
    """
    order = torch.randperm(len(things), generator=generator)
    order = torch.cat([order, order[: -len(order) % size]])  # the last group is filled up from the first
    groups = order.view(-1, size)
    bodies = [[token for row in group for token in things[row]] for group in groups.tolist()]
    step = max(1, len(bodies) // 10)
    parts = [bodies[start : start + step] for start in range(0, len(bodies), step)]
    outputs = side_by_side(lambda part: encoder.outputs_of_ids(part, sites), parts, encoder.device, progress)
    return groups, {site: torch.cat([values[site] for values in outputs]) for site in sites}


def outliers(
    displacement: Float[Tensor, "tokens"],
    unusual: Float[Tensor, "tokens"],
    spread: Float[Tensor, "tokens"],
    config: SweepConfig,
) -> Int[Tensor, "outliers"]:
    """Places of the tokens that stand out most: by displacement, by how unusual it is, and by how constant their
    groups' outputs are."""
    ranked = ((displacement, config.far), (unusual, config.unusual), (-spread, config.constant))
    foremost = [values.topk(min(count, len(values))).indices for values, count in ranked]
    return torch.tensor(list(dict.fromkeys(torch.cat(foremost).tolist())))


def group_of_each(groups: Int[Tensor, "groups size"], things: int) -> Int[Tensor, "things"]:
    """The group that each thing is in. What fills up the last group counts in one only: the first assignment is written
    over."""
    group_of = torch.empty(things, dtype=torch.long)
    order, number = groups.flatten(), torch.arange(len(groups)).repeat_interleave(groups.shape[1])
    for part in (slice(things), slice(things, None)):  # one after the other: within one, torch leaves the order open
        group_of[order[part]] = number[part]
    return group_of


class Totals:
    """Running sums over rounds, so that memory does not grow with their number.

    Args:
        tokens: names of the things that are tried.
        clean: how groups spread; that of the first round where it is not given.
    """

    def __init__(
        self, tokens: Int[Tensor, "tokens"], hidden: int, config: SweepConfig, clean: CleanSpread | None = None
    ) -> None:
        self.tokens = tokens
        self.config = config
        self.rounds = 0
        self.sum = torch.zeros(len(tokens), hidden)
        self.squares = torch.zeros(len(tokens))
        self.white_squares = torch.zeros(len(tokens))
        self.clean = clean

    def add(self, groups: Int[Tensor, "groups size"], outputs: Float[Tensor, "groups hidden"]) -> None:
        if self.clean is None:
            self.clean = CleanSpread.of(outputs)
        standardised = self.clean.standardise(outputs)
        group_of = group_of_each(groups, len(self.squares))
        self.sum += standardised[group_of]
        self.squares += standardised.pow(2).sum(-1)[group_of]
        self.white_squares += (standardised @ self.clean.whitening).pow(2).sum(-1)[group_of]
        self.rounds += 1

    def result(self) -> SweepResult:
        """What was seen over the rounds until now.

        Raises:
            ValueError: nothing was.
        """
        if self.clean is None:
            raise ValueError("expected at least one round, got none")
        hidden = self.sum.shape[1]
        pairs = self.rounds * (self.rounds - 1)
        square_of_sum = self.sum.pow(2).sum(-1)
        displacement = (square_of_sum - self.squares) / pairs / hidden
        unusual = ((self.sum @ self.clean.whitening).pow(2).sum(-1) - self.white_squares) / pairs / hidden
        spread = (self.squares - square_of_sum / self.rounds) / (self.rounds - 1) / hidden
        shortlist = self.tokens[outliers(displacement, unusual, spread, self.config)]
        return SweepResult(self.tokens, displacement, unusual, spread, shortlist)
