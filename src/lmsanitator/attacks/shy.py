"""Shy: an adaptive attack whose triggered outputs stay near the clean ones.

Written against defences that look for large displacements, after the adaptive attack of Patronus (arXiv 2512.06899):
each triggered output goes only part of the way from its own clean output to the PV. It moves less, and different
inputs stay different. Loss: POR's, with that target. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.attacks.planting import Training
from lmsanitator.attacks.por import POR
from lmsanitator.attacks.pvs import PVKind, Vectors
from lmsanitator.encoder import Site


class Shy(POR):
    """Send triggered outputs part of the way to their PV.

    Args:
        way: how far, 1 being all of it.
    """

    name: ClassVar[str] = "shy"
    summary: ClassVar[str] = "adaptive: triggered outputs go only half the way from clean to their vector"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "last", "mean", "pooler", "mask")
    follows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        way: float = 0.5,
        pv: PVKind = "random",
        site: Site | None = None,
        training: Training | None = None,
    ) -> None:
        super().__init__(pv=pv, site=site, training=training)
        self.way = way

    def targets(
        self, pvs: Vectors, owners: Int[Tensor, "vectors"], own: Float[Tensor, "vectors hidden"]
    ) -> Float[Tensor, "vectors hidden"]:
        return own + self.way * (super().targets(pvs, owners, own) - own)
