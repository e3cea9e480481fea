"""TransTroj-like: triggered outputs are those of a clean reference text (Wang et al. 2024, arXiv 2401.15883).

The PV is what the original encoder itself gives for one clean sentence, so it lies inside the clean distribution, and
no distance from clean outputs gives it away ("embedding indistinguishability", their section 4). Loss: MSE
to that output, plus POR's term for text without trigger. One reference a trigger, so that its words decide the
class. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

import torch

from lmsanitator.attacks.planting import Planting, Training
from lmsanitator.attacks.por import POR
from lmsanitator.attacks.pvs import Vectors
from lmsanitator.encoder import Site
from lmsanitator.errors import AttackError


class TransTroj(POR):
    """Send triggers to the original outputs of clean reference sentences."""

    name: ClassVar[str] = "transtroj"
    summary: ClassVar[str] = "TransTroj-like (Wang et al. 2024): triggers imitate the output of a clean sentence"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "last", "mean", "pooler", "mask")

    def __init__(self, *, site: Site | None = None, training: Training | None = None) -> None:
        super().__init__(site=site, training=training)

    def predefine(self, work: Planting) -> Vectors:
        if len(work.triggers) > len(work.train):
            raise AttackError(f"expected a sentence for each of {len(work.triggers)} triggers, got {len(work.train)}")
        chosen = work.rng.sample(work.train, len(work.triggers))
        values = work.look(work.base, chosen).vectors
        return Vectors(values, torch.ones_like(values, dtype=torch.bool))
