"""Null distributions that come from the model under test.

No threshold here was tuned on an architecture. A statistic is compared with the same statistic of things that are
no trigger *in the same model*: the other tokens of the vocabulary, random phrases, the other candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional

_FEWEST = 3
"""Candidates that are a null for another one."""
_APART = 1 / 3
"""Of the candidates of a search, those that may be set apart from their null."""
_SETS = 1.5
"""What the p-value of candidates is multiplied with because more than one set is tried: simulated for as few as eight
of them, a set at the level of 1 % errs in 1.1 to 1.5 % of cases (a test does it again)."""
_RATIOS, _POINTS = (-6.0, 2.0), 4001
"""Logarithms between which the ratio of an estimated scale and the true one lies, and where it is averaged over."""


@dataclass(frozen=True)
class TailNull:
    """The upper tail of a statistic, as an exponential beyond a threshold.

    Extrapolates beyond the largest sample, which an empirical rank cannot: with 30,000 tokens and a correction for
    having looked at all of them, no rank is ever significant. The statistics used here are logarithms of positive
    quantities whose tails fall faster than any power, so an exponential tail on the log scale (a power law on the
    original) errs on the side of large p-values. The fit is censored: the topmost samples, which may be triggers and
    their neighbours in embedding space, count only as "beyond" (maximum likelihood of a type-II censored sample).
    That the scale is estimated is paid for: an exponential variable over its scale as estimated from `seen` censored
    samples is F distributed with 2 and 2 * seen degrees of freedom (Epstein & Sobel 1953, Life testing), so p-values
    hold exactly where the tail is exponential, however few the samples.
    """

    threshold: float
    scale: float
    mass: float
    """Share of samples beyond the threshold."""
    seen: int
    """Samples the scale was estimated from."""

    @classmethod
    def fit(cls, samples: Float[Tensor, "samples"], *, mass: float = 0.05, censored: float = 0.01) -> "TailNull":
        """Fit to the samples between the quantiles 1 - mass and 1 - censored.

        Raises:
            ValueError: there are too few samples for ten in the tail.
        """
        ordered = samples.double().sort().values
        beyond, hidden = int(len(ordered) * mass), int(len(ordered) * censored)
        if beyond - hidden < 10:
            raise ValueError(f"expected at least ten samples in the tail, got {beyond - hidden} of {len(ordered)}")
        threshold = ordered[-beyond - 1].item()
        cap = ordered[-hidden - 1].item()
        seen = ordered[len(ordered) - beyond : len(ordered) - hidden]
        scale = ((seen - threshold).sum().item() + hidden * (cap - threshold)) / (beyond - hidden)
        return cls(threshold, max(scale, 1e-9), mass, beyond - hidden)

    def log_expected(self, value: Float[Tensor, "*values"], log_trials: float) -> Float[Tensor, "*values"]:
        """log of how many of exp(log_trials) things are expected to be as extreme by chance."""
        scales = (value.double() - self.threshold).clamp_min(0) / self.scale
        return math.log(self.mass) - self.seen * torch.log1p(scales / self.seen) + log_trials

    def log_p(self, value: Float[Tensor, "*values"], log_trials: float) -> Float[Tensor, "*values"]:
        """log of the p-value after looking at exp(log_trials) things, capped at 0 (Bonferroni)."""
        return self.log_expected(value, log_trials).clamp_max(0.0)

    def log_p_of_many(self, log_expected: float, count: int, log_trials: float) -> float:
        """log of the probability that `count` of exp(log_trials) independent things, or more, are as extreme as one of
        which exp(log_expected) are expected.

        How many are is Poisson distributed, for a scale that is known. It is not, and were it larger, all of them would
        be nearer; so the probability is that of a Poisson variable averaged over what the scale may be, the estimate
        over the truth being gamma distributed (Epstein & Sobel 1953).
        """
        log_beyond = math.log(self.mass) + log_trials
        if log_expected >= log_beyond:
            return 0.0
        scales = self.seen * math.expm1((log_beyond - log_expected) / self.seen)
        log_ratio = np.linspace(*_RATIOS, _POINTS)
        ratio = np.exp(log_ratio)
        weight = stats.gamma.logpdf(ratio * self.seen, self.seen) + math.log(self.seen) + log_ratio
        step = math.log(log_ratio[1] - log_ratio[0])
        chance = stats.poisson.logsf(count - 1, np.exp(log_beyond - scales * ratio))
        return min(0.0, float(logsumexp(weight + chance + step)))


def discoveries(log_expected: Sequence[float], *, share: float) -> list[bool]:
    """Which of the things looked at stand out, so that no more than `share` of them are expected to by chance
    (Benjamini & Hochberg 1995, section 2.2); those not given are taken as unremarkable.

    Args:
        log_expected: for each thing, how many of all that were looked at are expected to be as extreme by chance.
    """
    ranked = sorted(range(len(log_expected)), key=log_expected.__getitem__)
    last = max((rank for rank, at in enumerate(ranked, 1) if log_expected[at] <= math.log(rank * share)), default=0)
    return [at in set(ranked[:last]) for at in range(len(log_expected))]


def outlier_log_p(
    values: Float[Tensor, "candidates"], alike: Bool[Tensor, "candidates candidates"] | None = None
) -> Float[Tensor, "candidates"]:
    """log p of each candidate being as strong as it is, given the weaker ones (externally studentised, Bonferroni).

    The null for a search: candidates that start at random places and find no backdoor reach much the same strength on
    one model, clean or not, so the ones that found nothing are the null for those that did. Several may have found
    something, and would hide each other if each were the null of the rest. So the strongest, the two strongest and so
    on are set apart in turn, and what is an outlier beside the rest makes all that are stronger outliers (the
    generalised test of Rosner 1983, Percentage points for a generalized ESD many-outlier procedure). That many sets are
    tried costs little, since they hardly ever err but together; `_SETS` pays for it. If most candidates find a backdoor
    there is no null left and p stays large: the test then misses, it does not accuse.

    Args:
        alike: which candidates found the same thing; these are no null for each other.
    """
    count = len(values)
    ordered = values.double()
    log_p = torch.zeros(count, dtype=torch.float64)
    for index in ordered.argsort(descending=True)[: max(1, int(count * _APART))].tolist():
        weaker = ordered < ordered[index]
        others = ordered[weaker if alike is None else weaker & ~alike[index]]
        if len(others) < _FEWEST:
            continue
        error = others.std().clamp_min(1e-6).item() * math.sqrt(1 + 1 / len(others))
        t = (ordered[index] - others.mean()).item() / error
        own = min(0.0, float(stats.t.logsf(t, len(others) - 1)) + math.log(count * _SETS))
        log_p[~weaker] = log_p[~weaker].clamp_max(own)
    return log_p


def independent(statistics: Float[Tensor, "tests things"]) -> float:
    """How many independent tests there are in several of the same things: 1 where all rank the things alike, all of
    them where none says anything about another (Galwey 2009, A new measure of the effective number of tests, with the
    correlation of ranks, which a few things that stand out everywhere do not dominate)."""
    ranks = statistics.argsort(dim=1).argsort(dim=1).double()
    ranks = functional.normalize(ranks - ranks.mean(1, keepdim=True), dim=1)
    shares = torch.linalg.eigvalsh(ranks @ ranks.T).clamp_min(0)
    effective: float = shares.sqrt().sum().square().item() / max(shares.sum().item(), 1e-12)
    return max(1.0, effective)


def spreads_more(first: float, second: float, degrees: tuple[float, float], *, level: float = 1e-3) -> bool:
    """Whether `first` is significantly larger than `second`, both spreads, of so many degrees of freedom (one-sided F
    test)."""
    return first / max(second, 1e-12) > float(stats.f.isf(level, *degrees))
