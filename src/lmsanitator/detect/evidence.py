"""Evidence: what tokens put into natural contexts did at one site, and how likely that is for words that are no
trigger."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.null import TailNull, spreads_more
from lmsanitator.encoder import Site

REPLAYS = 0.8
"""Share of carriers in which a trigger has to fire."""

SHARES = {"beyond": 0.25, "steady": 0.25, "constant": 0.5}
"""Of the false positives that may be, those that each statistic may be to blame for. Most triggers do all three. What
only adds to the output goes beyond clean text, or adds the same everywhere; what goes to a place near clean text is
constant."""

_FEWEST = 40
"""Words that a null is fitted to without those that fire."""

_BEYOND = 5.0
"""Standard deviations of clean outputs within which there is clean text: no more than 4 % of any distribution lie
further out (Chebyshev), of a normal one next to nothing. Chosen on the part `choose` of the zoo, between words of a
class and the weakest triggers."""


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
    beyond: float = math.inf
    """How far the tokens take the mean output, in standard deviations of clean outputs along that way."""
    steadiness: float = 0.0
    """How far they take it in all contexts alike, squared, beside how much that differs from one to the next."""

    @property
    def natural(self) -> bool:
        """Whether the tokens take text no further than other clean text goes by itself: as the words of a class do in
        an encoder that was tuned to tell classes apart."""
        return self.beyond < _BEYOND

    @property
    def replays(self) -> bool:
        """Whether the tokens take most text their way again."""
        return self.replay_rate >= REPLAYS

    @property
    def fires(self) -> bool:
        """Whether the tokens send most text to one place, where no clean text is."""
        return self.constant_rate >= REPLAYS and not self.natural

    def less_constant(self, other: "Evidence", level: float = 1e-3) -> bool:
        """Whether outputs differ significantly more than those of `other`, in the same contexts (one-sided F test)."""
        return spreads_more(self.spread, other.spread, (self.degrees, other.degrees), level=level)


def harmless(found: Sequence[Evidence]) -> Sequence[Evidence]:
    """What may be a null: all but what fires, as natural words do not. One backdoor may have dozens of triggers, all
    words of a script, say. If hardly anything else is left, everything has to be the null."""
    left = [item for item in found if not item.fires]
    return left if len(left) >= _FEWEST else found


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

    def beside(self, others: Sequence["Null"]) -> "Null":
        """The same null, with what the nulls of other sites say of it."""
        return self


@dataclass(frozen=True)
class EvidenceNull(Null):
    """What things that are no trigger do in the same kind of text: the tail of each of `STATISTICS`, and what other
    sites say of it (`beside`)."""

    tails: Mapping[str, TailNull]
    log_trials: float
    elsewhere: Mapping[str, tuple[TailNull, ...]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, harmless: Sequence[Evidence], log_trials: float, *, mass: float = 0.25, censored: float = 0.05
    ) -> "EvidenceNull":
        """Fit all tails (`TailNull.fit`)."""
        tails = {
            name: TailNull.fit(torch.tensor([statistic(item) for item in harmless]), mass=mass, censored=censored)
            for name, statistic in STATISTICS.items()
        }
        return cls(tails, log_trials)

    def log_expected(self, evidence: Evidence) -> float:
        """As of any null, corrected for all statistics, by their shares. Anything that looks at all may lead to where
        clean text is."""
        if evidence.natural:
            return self._trials("constant")
        return min(self._log_expected(name, statistic(evidence)) for name, statistic in STATISTICS.items())

    def _log_expected(self, name: str, value: float) -> float:
        """Of one statistic, by the tail in which the value is most usual."""
        tails = (self.tails[name], *self.elsewhere.get(name, ()))
        return max(tail.log_expected(torch.tensor(value), self._trials(name)).item() for tail in tails)

    def log_p_together(self, log_p: Sequence[float]) -> list[float]:
        """Of each thing the p-value of the most telling set it is in: the k most extreme for any k, the p-value of k
        things multiplied with 2^k (a Bonferroni correction with weights that sum to one)."""
        sets = [
            self.tails["constant"].log_p_of_many(value, count, self._trials("constant")) + count * math.log(2)
            for count, value in enumerate(log_p, 1)
        ]
        return [min(0.0, *sets[place:]) for place in range(len(sets))]

    def beside(self, others: Sequence[Null]) -> Null:
        """How far words take an output, and how steadily, is in the same units at every site. At some a few natural
        words go much further than the rest, so of these tails the one counts in which a word is most usual."""
        nulls = [other for other in others if isinstance(other, EvidenceNull) and other is not self]
        if not nulls:
            return self
        return replace(
            self, elsewhere={name: tuple(null.tails[name] for null in nulls) for name in ("beyond", "steady")}
        )

    def _trials(self, statistic: str) -> float:
        return self.log_trials - math.log(SHARES[statistic])


def _beyond(evidence: Evidence) -> float:
    """Squared: the tail of the square of a normal variable is exponential."""
    return evidence.beyond**2


def _steady(evidence: Evidence) -> float:
    """The power that makes the tail of natural words exponential, or lighter. Chosen on the part `choose` of the zoo,
    on its clean models."""
    return math.pow(evidence.steadiness, 1.5)


def _constant(evidence: Evidence) -> float:
    return -math.log(max(evidence.spread, 1e-9))


STATISTICS: Mapping[str, Callable[[Evidence], float]] = {"beyond": _beyond, "steady": _steady, "constant": _constant}
"""What evidence is judged by; large values are those of triggers."""
