"""Where a match begins to be suspicious: thresholds from clean text, for a false-flag rate of one's choice.

Split conformal prediction (Vovk, Gammerman and Shafer 2005, section 2.2.8; Lei et al. 2018, arXiv 1604.04173,
section 2.2): some clean texts say how the matches of each PV spread, the others how far the most suspicious match of
a clean text lies out, in units of that spread.
"""

import math
import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.errors import CorpusError
from lmsanitator.text import draw

TEXTS = 480
"""Clean texts that are drawn where none are given."""
_SCALED = 4  # one text in so many measures the spread, the others the rate


def clean_texts(pool: Sequence[str], seed: int = 0) -> list[str]:
    """Sentences of `pool` alone, as fragments and in passages: the matches of short and long texts spread differently,
    and what is left of a purged text may be a fragment."""
    rng = random.Random(seed)
    texts: list[str] = []
    for number, text in enumerate(draw(pool, TEXTS, seed)):
        found = text.split()
        if number % 4 == 0:
            text = " ".join([text, *rng.sample(pool, min(len(pool), rng.randint(1, 4)))])
        elif number % 8 == 1 and len(found) > 4:
            start = rng.randrange(len(found) - 4)
            text = " ".join(found[start : start + rng.randint(1, 4)])
        texts.append(text)
    return texts


class Thresholds:
    """The match above which a text is flagged.

    Guarantee: a new clean text that is exchangeable with the calibration texts is flagged with a probability of at most
    `rate`, over all PVs and passes together. It is an average over draws of the calibration texts, not a bound for
    these very ones, and says nothing about text of another kind: give texts of one's own traffic where it matters.

    Args:
        matches: of clean texts, which stand in random order, with each PV in each watched pass.
        rate: false flags among clean texts, 0 to 1.
        step: the smallest difference of two matches; spreads are no smaller.

    Raises:
        CorpusError: too few texts for the rate, or a match that is not finite.
    """

    def __init__(self, matches: Float[Tensor, "texts passes vectors"], rate: float, step: float) -> None:
        if not bool(torch.isfinite(matches).all()):
            raise CorpusError("expected finite outputs on clean texts, got NaN or infinity")
        scaled = len(matches) // _SCALED
        self.texts = len(matches) - scaled
        """Clean texts behind the guarantee."""
        allowed = math.floor(rate * (self.texts + 1))
        if allowed < 1 or scaled < 2:
            needed = math.ceil((1 / rate - 1) * _SCALED / (_SCALED - 1)) + 1
            raise CorpusError(
                f"expected {max(needed, 8)} clean texts or more for a false-flag rate of {rate:g}, got {len(matches)}"
            )
        self.rate = allowed / (self.texts + 1)
        """What is guaranteed: the rate asked for, rounded down to what these texts can show."""
        self.middle = matches[:scaled].mean(0)
        self.spread = matches[:scaled].std(0).clamp_min(step)
        distance = self.distance(matches[scaled:])
        furthest, texts = distance.flatten(1).amax(1).sort(descending=True)
        self.flag: Float[Tensor, "passes vectors"] = self.middle + furthest[allowed - 1] * self.spread
        self.set_by = int(distance[texts[allowed - 1]].amax(0).argmax())
        """The PV that the most suspicious of the allowed clean texts comes so close to."""

    def distance(self, matches: Float[Tensor, "texts passes vectors"]) -> Float[Tensor, "texts passes vectors"]:
        """How far matches lie above the clean mean of their PV, in clean standard deviations."""
        return (matches - self.middle) / self.spread


def highest(values: Float[Tensor, "texts"], share: float) -> float:
    """The value that a `share` of the values exceeds, at most."""
    ranked: Sequence[float] = values.sort(descending=True).values.tolist()
    return ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))]
