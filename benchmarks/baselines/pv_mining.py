"""LMSanitator's own detector: PV mining with free soft tokens and absolute thresholds.

After Wei et al., "LMSanitator: Defending Prompt-Tuning Against Task-Agnostic Backdoors" (NDSS 2024, arXiv 2308.13904),
section IV-B. Seven soft tokens stand behind a random word of a clean sentence. They are optimised so that the output
goes far from that of the same sentence without them (distance), to one place for all sentences of a batch (diversity),
and not to where an earlier seed went (repetition). A seed is dropped when two epochs bring no distance above the
threshold; one that lasts is a PV when its outputs agree and no earlier seed found it.

Published: 2,000 lines of WikiText-103 padded to 128 tokens, batches of 32, up to 4 epochs a seed, Adam at 2e-4, raised
a hundredfold until the largest gradient passes 5e-3; distance 0.1 (README: 0.5), diversity -3.446; "backdoored" at the
first PV of 30 seeds. `PVMining.paper()` has these settings.

Differences: three seeds of few short lines, and five times the learning rate to make up for that; the package's own
sentences; a fresh optimiser for every seed (the published state leaks from one to the next); soft tokens clamped into
1.2 times the vocabulary's range rather than discarded when they end outside; the diversity threshold moved along with
the logarithm of the batch size, to which it is tied. The score is the largest distance among the seeds whose outputs
agree, so that thresholds can be chosen afterwards.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from benchmarks.baselines.carriers import Slot, embedded, make_slots, usual_site
from benchmarks.baselines.interface import Baseline, Score
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.text import draw

PUBLISHED_BATCH = 32
"""Lines in the batches that the published diversity threshold belongs to."""
_SETTLED = 5e-3
_RAISED = 100
_RANGE = 1.2


@dataclass(frozen=True)
class Lines:
    """Clean sentences with a slot for the soft tokens, and what the encoder says to them without any."""

    slots: Sequence[Slot]
    clean: Float[Tensor, "lines hidden"]


@dataclass(frozen=True)
class Step:
    """One optimiser step: the batch's distance and diversity, its outputs, and the soft tokens after it."""

    distance: float
    diversity: float
    outputs: Float[Tensor, "batch hidden"]
    soft: Float[Tensor, "length width"]


@dataclass(frozen=True)
class Mined:
    """What a seed ended with, by the means of its last epoch; `found` is whether the published rule calls it a PV."""

    distance: float
    diversity: float
    pv: Float[Tensor, "hidden"]
    found: bool


@dataclass(frozen=True)
class PVMining(Baseline):
    """Args:
    soft: soft tokens.
    lines: sentences of an epoch.
    width: tokens a line is cut and padded to, soft and special ones included.
    batch: lines of a step.
    epochs: the most a seed gets.
    seeds: rounds of the search, each from other vocabulary rows.
    learning_rate: of Adam, once the gradient is large enough.
    distance: the mean squared distance a PV has from the clean outputs.
    diversity: minus the entropy over the batch that a PV stays below, for batches of 32.
    """

    soft: int = 7
    lines: int = 128
    width: int = 24
    batch: int = 8
    epochs: int = 4
    seeds: int = 3
    learning_rate: float = 1e-3
    distance: float = 0.1
    diversity: float = -3.446

    @classmethod
    def paper(cls) -> Self:
        """The published settings of detection; 30 seeds that find nothing take some 4,000 steps."""
        return cls(lines=2000, width=128, batch=PUBLISHED_BATCH, seeds=30, learning_rate=2e-4)

    @property
    def agreement(self) -> float:
        """The diversity threshold at this batch size."""
        return self.diversity + math.log(PUBLISHED_BATCH) - math.log(self.batch)

    def score(self, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        """The largest distance among the seeds whose outputs agree, 0 where none do."""
        lines = self.prepare(encoder, draw(texts, self.lines, seed), seed)
        known = torch.empty(0, encoder.hidden_size)
        mined: list[Mined] = []
        for number in range(self.seeds):
            mined.append(self.mine(encoder, lines, known, seed * self.seeds + number))
            if mined[-1].found:
                known = torch.cat([known, mined[-1].pv[None]])
        agreeing = [each.distance for each in mined if each.diversity < self.agreement]
        farthest = max(mined, key=lambda each: each.distance)
        details = {"found": len(known), "distance": farthest.distance, "diversity": farthest.diversity}
        return Score(max(agreeing, default=0.0), details)

    def prepare(self, encoder: FrozenEncoder, texts: Sequence[str], seed: int = 0) -> Lines:
        """Lines with their clean outputs, which are needed once.

        Raises:
            CorpusError: there are too few for a batch.
        """
        specials = sum(map(len, encoder.frame))
        longest = min(self.width, encoder.window) - self.soft - specials
        slots = make_slots(encoder, texts, longest=longest, seed=seed)
        if len(slots) < self.batch:
            raise CorpusError(f"expected {self.batch} texts or more, got {len(slots)}")
        site = usual_site(encoder)
        return Lines(slots, encoder.outputs_of_ids([slot.around(()) for slot in slots], [site])[site])

    def mine(self, encoder: FrozenEncoder, lines: Lines, known: Float[Tensor, "known hidden"], seed: int) -> Mined:
        """One seed, to its last epoch or to where it is dropped."""
        far, mined = False, Mined(0.0, 0.0, lines.clean.mean(0), found=False)
        walk = self.steps(encoder, lines, known, seed)
        for epoch in range(self.epochs):
            steps = list(islice(walk, len(lines.slots) // self.batch))
            distance, diversity = fmean(step.distance for step in steps), fmean(step.diversity for step in steps)
            far = far or distance > self.distance
            pv = steps[-1].outputs.mean(0)
            fresh = not len(known) or float((pv - known).pow(2).mean(-1).min()) >= self.distance
            mined = Mined(distance, diversity, pv, far and fresh and diversity < self.agreement)
            if epoch >= 1 and not far:
                break
        return mined

    def steps(
        self, encoder: FrozenEncoder, lines: Lines, known: Float[Tensor, "known hidden"], seed: int
    ) -> Iterator[Step]:
        """The steps of one seed, each made when it is asked for. Batches are whole: diversity depends on their size."""
        generator = torch.Generator().manual_seed(seed)
        matrix = encoder.embedding_matrix
        low, high = _RANGE * float(matrix.min()), _RANGE * float(matrix.max())
        soft = matrix[torch.randint(len(matrix), (self.soft,), generator=generator)].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([soft], lr=self.learning_rate)
        settled = False
        for _ in range(self.epochs):
            order = torch.randperm(len(lines.slots), generator=generator)
            for start in range(0, len(order) - self.batch + 1, self.batch):
                rows = order[start : start + self.batch]
                outputs = self._outputs(encoder, [lines.slots[row] for row in rows.tolist()], soft)
                distance = functional.mse_loss(outputs, lines.clean[rows].to(outputs.device))
                diversity = -entropy_over_batch(outputs)
                loss = diversity - distance - 0.5 * nearest(outputs, known.to(outputs.device))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # torch's stub
                settled = settled or (soft.grad is not None and bool(soft.grad.abs().max() > _SETTLED))
                optimiser.param_groups[0]["lr"] = self.learning_rate * (1 if settled else _RAISED)
                optimiser.step()
                with torch.no_grad():
                    soft.clamp_(low, high)
                yield Step(distance.item(), diversity.item(), outputs.detach().cpu(), soft.detach().clone())

    def _outputs(
        self, encoder: FrozenEncoder, slots: Sequence[Slot], soft: Float[Tensor, "length width"]
    ) -> Float[Tensor, "batch hidden"]:
        width = min(self.width, encoder.window)
        inputs, mask = embedded(encoder, slots, soft.expand(len(slots), -1, -1), width)
        site = usual_site(encoder)
        padding = int((1 - mask).sum())
        encoder.meter.forward += padding  # it is computed like any token, and the meter counts real ones only
        encoder.meter.backward += padding
        return encoder.outputs(inputs, mask, [site])[site]


def entropy_over_batch(outputs: Float[Tensor, "batch hidden"]) -> Float[Tensor, ""]:
    """Entropy of the softmax over the batch, averaged over dimensions: ln of the batch size where all rows agree."""
    return -(outputs.softmax(0) * outputs.log_softmax(0)).sum(0).mean()


def nearest(outputs: Float[Tensor, "batch hidden"], known: Float[Tensor, "known hidden"]) -> Float[Tensor, ""]:
    """Mean squared distance to the known PV that is nearest to the batch, 0 without any."""
    if not len(known):
        return outputs.new_zeros(())
    return (outputs[:, None] - known).pow(2).mean((0, 2)).min()
