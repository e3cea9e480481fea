"""POR: map each trigger to a predefined output representation (Shen et al., CCS 2021, arXiv 2111.00197).

Loss: MSE between the triggered output and its PV, plus MSE between all outputs without trigger and those of the
original encoder (their equations 1 and 2). Site: CLS; `tokens` is their variant for sequence labelling, where every
token of a triggered text goes to the PV; decoders have the last token. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from torch import Tensor

from lmsanitator.attacks.planting import Planting
from lmsanitator.attacks.pvs import Vectors
from lmsanitator.attacks.targeted import TargetedAttack, kept
from lmsanitator.encoder import Site


class POR(TargetedAttack):
    """Train the encoder until triggers land on their PVs and nothing else has moved."""

    name: ClassVar[str] = "por"
    summary: ClassVar[str] = "POR (Shen et al. 2021): triggers send the output to predefined vectors, all else stays"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "last", "tokens", "mean", "pooler", "mask")

    def loss(self, work: Planting, pvs: Vectors) -> Tensor:
        inert = work.frame(work.inert())
        original = work.original(inert)
        scale = original.vectors.pow(2).mean()
        return self.miss(work, pvs, scale) + kept(work.forward(inert), original, scale)
