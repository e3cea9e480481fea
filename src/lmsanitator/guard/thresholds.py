"""Where a match begins to be suspicious: thresholds from clean text, for a false-flag rate of one's choice.

Split conformal prediction (Vovk, Gammerman and Shafer 2005, section 2.2.8; Lei et al. 2018, arXiv 1604.04173,
section 2.2): some clean texts say how the matches of each PV spread, the others how far the most suspicious match of
a clean text lies out, in units of that spread.
"""

import math
import random
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.errors import CorpusError
from lmsanitator.text import draw

TEXTS = 480
"""Clean texts that are drawn where none are given."""
Unit = Literal["spread", "way"]
"""What distances are measured in, for each PV: the clean standard deviation of its matches, or the way from their clean
mean to 1, where an output has the sign of the PV in every dimension."""
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
        step: the smallest difference of two matches; units are no smaller.
        unit: what makes the matches of different PVs comparable.

    Raises:
        CorpusError: too few texts for the rate, or a match that is not finite.
    """

    def __init__(
        self, matches: Float[Tensor, "texts passes vectors"], rate: float, step: float, unit: Unit = "spread"
    ) -> None:
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
        self.unit = (matches[:scaled].std(0) if unit == "spread" else 1 - self.middle).clamp_min(step)
        distance = self.distance(matches[scaled:])
        furthest, texts = distance.flatten(1).amax(1).sort(descending=True)
        self.flag: Float[Tensor, "passes vectors"] = self.middle + furthest[allowed - 1] * self.unit
        self.set_by = int(distance[texts[allowed - 1]].amax(0).argmax())
        """The PV that the most suspicious of the allowed clean texts comes so close to."""

    def distance(self, matches: Float[Tensor, "texts passes vectors"]) -> Float[Tensor, "texts passes vectors"]:
        """How far matches lie above the clean mean of their PV, in its unit."""
        return (matches - self.middle) / self.unit

    def passed(self, matches: Float[Tensor, "texts passes vectors"]) -> int:
        """How many texts get through unflagged."""
        return len(matches) - int((matches > self.flag).flatten(1).any(1).sum())


def settle(
    clean: Float[Tensor, "texts passes vectors"],
    triggered: Float[Tensor, "sentences passes vectors"],
    rate: float,
    step: float,
) -> tuple[list[int], Thresholds | None]:
    """The PVs that can be watched together, and their thresholds.

    A clean text may come so near a PV that no match lies above its threshold: such a PV is not watched. But a text may
    also lie so many spreads out for one PV that thresholds of others, at as many spreads, are beyond 1. Then either
    that PV is given up, or all thresholds are set on the way to 1, where none is out of reach though each is higher
    than it might be. What triggers do decides: the choice is the one with which the fewest sentences with a trigger get
    through. Where no trigger is named there is nothing to judge by, and PVs are given up.

    The guarantee of `Thresholds` holds for each choice by itself. That the choice is made with the same clean texts
    weakens it, to the rate times the number of choices at worst.

    Returns:
        Columns of the PVs that are watched, and the thresholds of these; none where no PV can be watched.
    """

    def at(columns: list[int], unit: Unit) -> Thresholds:
        return Thresholds(clean[:, :, columns], rate, step, unit)

    watched = [column for column in range(clean.shape[2]) if float(at([column], "spread").flag.amin()) < 1]
    choices: list[tuple[list[int], Thresholds]] = []
    while watched:
        thresholds = at(watched, "spread")
        if bool((thresholds.flag < 1).any(0).all()):
            choices.insert(0, (watched, thresholds))
            break
        if len(triggered):
            choices.append((watched, at(watched, "way")))
        watched = [column for column in watched if column != watched[thresholds.set_by]]
    if not choices:
        return [], None
    return min(choices, key=lambda choice: choice[1].passed(triggered[:, :, choice[0]]))


def highest(values: Float[Tensor, "texts"], share: float) -> float:
    """The value that a `share` of the values exceeds, at most."""
    ranked: Sequence[float] = values.sort(descending=True).values.tolist()
    return ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))]
