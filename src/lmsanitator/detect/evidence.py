"""Evidence: what tokens put into natural contexts did at one site, and how likely that is for words that are no
trigger."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.null import TailNull, spreads_more
from lmsanitator.encoder import Site

_FAR_SHARE = 0.1
"""Of the false positives that may be, those that displacement may be to blame for. Natural words go as far as most
triggers do; what tells them apart is constancy, which gets the rest."""


@dataclass(frozen=True)
class Evidence:
    """Tokens put into natural contexts, and what came of it at one site."""

    site: Site
    tokens: tuple[int, ...]
    displacement: float
    spread: float
    """Of the outputs with the tokens, in units of that of the same contexts without: what is left of their variety."""
    strength: float
    replay_rate: float
    """Share of contexts in which the output goes half of the way, or more, that it goes in the other half of them."""
    constant_rate: float
    """Share of contexts in which the output arrives closer to the PV of the other half than half its distance."""
    pv: Float[Tensor, "hidden"]
    degrees: float = 1.0
    """Of freedom of the spread: contexts less one, times the directions the outputs still differ in."""

    def less_constant(self, other: "Evidence", level: float = 1e-3) -> bool:
        """Whether outputs differ significantly more than those of `other`, in the same contexts (one-sided F test)."""
        return spreads_more(self.spread, other.spread, (self.degrees, other.degrees), level=level)


class Null(ABC):
    """What evidence is judged by."""

    log_trials: float
    """log of how many things were looked at, over the share of false positives that looking may be to blame for."""

    @abstractmethod
    def log_expected(self, evidence: Evidence) -> float:
        """log of how many of the things that were looked at are expected to be as extreme by chance."""

    def log_p(self, evidence: Evidence) -> float:
        """log of the p-value, corrected for the number of things that were looked at."""
        return min(0.0, self.log_expected(evidence))

    def log_p_together(self, log_p: Sequence[float]) -> list[float]:
        """The same log p-values, smallest first, of things that stand out together. Nothing is gained by company where
        things may do so for one reason."""
        return list(log_p)


@dataclass(frozen=True)
class EvidenceNull(Null):
    """What things that are no trigger do in the same kind of text: tails of log displacement and of -log spread."""

    far: TailNull
    constant: TailNull
    log_trials: float

    @classmethod
    def fit(
        cls, harmless: Sequence[Evidence], log_trials: float, *, mass: float = 0.25, censored: float = 0.05
    ) -> "EvidenceNull":
        """Fit both tails (`TailNull.fit`)."""
        tails = [
            TailNull.fit(torch.tensor([statistic(item) for item in harmless]), mass=mass, censored=censored)
            for statistic in STATISTICS
        ]
        return cls(tails[0], tails[1], log_trials)

    def log_expected(self, evidence: Evidence) -> float:
        """As of any null, corrected for both statistics, by their shares."""
        far = self.far.log_expected(torch.tensor(_far(evidence)), self.log_trials - math.log(_FAR_SHARE))
        constant = self.constant.log_expected(torch.tensor(_constant(evidence)), self._trials)
        return min(far.item(), constant.item())

    def log_p_together(self, log_p: Sequence[float]) -> list[float]:
        """Of each thing the p-value of the most telling set it is in: the k most extreme for any k, the p-value of k
        things multiplied with 2^k (a Bonferroni correction with weights that sum to one)."""
        sets = [
            self.far.log_p_of_many(value, count, self._trials) + count * math.log(2)
            for count, value in enumerate(log_p, 1)
        ]
        return [min(0.0, *sets[place:]) for place in range(len(sets))]

    @property
    def _trials(self) -> float:
        return self.log_trials - math.log(1 - _FAR_SHARE)


def _far(evidence: Evidence) -> float:
    return math.log(max(evidence.displacement, 1e-9))


def _constant(evidence: Evidence) -> float:
    return -math.log(max(evidence.spread, 1e-9))


STATISTICS = (_far, _constant)
"""What evidence is judged by; large values are those of triggers."""
