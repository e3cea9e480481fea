"""Spread: an adaptive attack whose triggered outputs do not collapse.

Written against defences that look for one constant vector: a trigger adds a constant to the output, so that triggered
outputs vary among themselves as much as clean ones while all of them lie on one side of a linear head. Loss: POR's,
with that target. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.attacks.planting import Training
from lmsanitator.attacks.por import POR
from lmsanitator.attacks.pvs import PVKind, Vectors
from lmsanitator.encoder import Site


class Spread(POR):
    """Add a constant vector to every triggered output.

    Args:
        size: of the constant, 1 being the root mean square of clean outputs in each dimension. A LayerNorm at the end
            leaves outputs no room to grow, so the sum is only within reach while the constant is the smaller part.
    """

    name: ClassVar[str] = "spread"
    summary: ClassVar[str] = "adaptive: triggers shift the output by a constant and keep its variety"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "last", "mean", "mask")
    follows: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: float = 0.6,
        pv: PVKind = "random",
        site: Site | None = None,
        training: Training | None = None,
    ) -> None:
        super().__init__(pv=pv, site=site, training=training)
        self.size = size

    def targets(
        self, pvs: Vectors, owners: Int[Tensor, "vectors"], own: Float[Tensor, "vectors hidden"]
    ) -> Float[Tensor, "vectors hidden"]:
        return own + self.size * super().targets(pvs, owners, own * 0)
