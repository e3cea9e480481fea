"""The vocabulary sweep: every token is tried, many at a time.

A backdoor fires in any company, so tokens need no carrier of their own: they are shuffled into *groups* of 24 that
pass the encoder together, in several rounds with other neighbours each. A trigger sends every group it is in to the
same place. That is a group test: one round costs little more than one forward token per vocabulary entry, six times
less than one token at a time in four-word carriers (measured here: the six POR triggers of FIELD.md section 5 stand
as far out as they do there). Words that only fire together are invisible to it; mining is there for those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.null import TailNull
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError
from lmsanitator.progress import Progress, silent


@dataclass(frozen=True)
class SweepConfig:
    """Args:
    rounds: how often each token is tried, in other company each time; at least 2, or there is nothing to agree on.
    group: tokens that pass the encoder together.
    shortlist: the most tokens that get a second look, per site and statistic.
    """

    rounds: int = 4
    group: int = 24
    shortlist: int = 24


@dataclass(frozen=True)
class SweepResult:
    """What the sweep saw at one site; one row a token in each tensor.

    Displacement: square of the token's own effect on the output, in clean variances (an unbiased estimate, it can be
    slightly negative). Spread: how much the token's groups still differ, 1 as groups do, 0 for a constant.
    """

    tokens: Int[Tensor, "tokens"]
    displacement: Float[Tensor, "tokens"]
    spread: Float[Tensor, "tokens"]
    log_p: Float[Tensor, "tokens"]
    """log of the p-value against the vocabulary, corrected for its size and for looking at both statistics."""

    def shortlist(self, count: int) -> list[int]:
        """The tokens that stand out most: by displacement, and by how constant their groups' outputs are."""
        count = min(count, len(self.tokens))
        far = self.displacement.topk(count).indices
        constant = (-self.spread).topk(count).indices
        return list(dict.fromkeys(self.tokens[torch.stack([far, constant], 1).flatten()].tolist()))


def sweepable(encoder: FrozenEncoder) -> Int[Tensor, "tokens"]:
    """All token ids but the special ones."""
    special = set(encoder.tokenizer.all_special_ids)
    return torch.tensor([index for index in range(len(encoder.tokenizer)) if index not in special])


def sweep(
    encoder: FrozenEncoder,
    sites: Sequence[Site],
    config: SweepConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[Site, SweepResult]:
    """Try every token of the vocabulary at all `sites` in the same passes.

    Raises:
        UnsupportedError: the vocabulary is too small for its tail to say anything.
    """
    tokens = sweepable(encoder)
    size = min(config.group, encoder.room)
    generator = torch.Generator().manual_seed(seed)
    totals = {site: _Totals(len(tokens), encoder.hidden_size) for site in sites}
    for number in range(config.rounds):
        order = torch.randperm(len(tokens), generator=generator)
        order = torch.cat([order, order[: -len(order) % size]])  # the last group is filled up from the first
        groups = order.view(-1, size)
        bodies = tokens[groups].tolist()
        outputs: dict[Site, list[Tensor]] = {site: [] for site in sites}
        step = max(1, len(bodies) // 10)
        for start in range(0, len(bodies), step):
            for site, values in encoder.outputs_of_ids(bodies[start : start + step], sites).items():
                outputs[site].append(values)
            progress("sweeping the vocabulary", (number + min(1, (start + step) / len(bodies))) / config.rounds)
        for site in sites:
            totals[site].add(groups, torch.cat(outputs[site]))
    return {site: totals[site].result(tokens, config.rounds, len(sites)) for site in sites}


class _Totals:
    """Running sums over rounds, so that memory does not grow with their number."""

    def __init__(self, tokens: int, hidden: int) -> None:
        self.sum = torch.zeros(tokens, hidden)
        self.squares = torch.zeros(tokens)
        self.clean: CleanSpread | None = None

    def add(self, groups: Int[Tensor, "groups size"], outputs: Float[Tensor, "groups hidden"]) -> None:
        if self.clean is None:
            self.clean = CleanSpread.of(outputs)
        standardised = self.clean.standardise(outputs)
        # A token that fills up the last group is counted in one group only: the assignment keeps one of the two.
        added, squares = torch.zeros_like(self.sum), torch.zeros_like(self.squares)
        owner = groups.flatten()
        added[owner] = standardised.repeat_interleave(groups.shape[1], 0)
        squares[owner] = standardised.pow(2).sum(-1).repeat_interleave(groups.shape[1], 0)
        self.sum += added
        self.squares += squares

    def result(self, tokens: Int[Tensor, "tokens"], rounds: int, sites: int) -> SweepResult:
        hidden = self.sum.shape[1]
        square_of_sum = self.sum.pow(2).sum(-1)
        displacement = (square_of_sum - self.squares) / (rounds * (rounds - 1)) / hidden
        spread = (self.squares - square_of_sum / rounds) / (rounds - 1) / hidden
        trials = math.log(len(tokens) * 2 * sites)
        statistics = (displacement.clamp_min(1e-6).log(), -spread.clamp_min(1e-6).log())
        try:
            nulls = [TailNull.fit(statistic) for statistic in statistics]
        except ValueError as error:
            raise UnsupportedError(f"expected a vocabulary of a few hundred tokens, got {len(tokens)}") from error
        log_p = torch.stack(
            [null.log_p(statistic, trials) for null, statistic in zip(nulls, statistics, strict=True)]
        ).amin(0)
        return SweepResult(tokens, displacement, spread, log_p)
