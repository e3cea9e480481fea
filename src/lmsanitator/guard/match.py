"""How well outputs agree with predefined vectors: all PVs of all sites in one matrix product."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.encoder import SITES, Site
from lmsanitator.vectors import PredefinedVector


class SignMatch:
    """The share of dimensions in which an output has the sign of a PV (LMSanitator, section IV-D).

    The outputs of all sites stand side by side, and each PV is zero at the sites that are not its own, so that one
    product answers for all of them.

    Args:
        vectors: at least one; the columns of the result keep their order.
    """

    def __init__(self, vectors: Sequence[PredefinedVector]) -> None:
        present = {vector.site for vector in vectors}
        self.sites: tuple[Site, ...] = tuple(site for site in SITES if site in present)
        hidden = len(vectors[0].values)
        signs = torch.zeros(len(self.sites) * hidden, len(vectors))
        for column, vector in enumerate(vectors):
            start = self.sites.index(vector.site) * hidden
            signs[start : start + hidden, column] = vector.values.sign().cpu()
        self._signs = signs / (2 * hidden)

    def __call__(self, outputs: Mapping[Site, Float[Tensor, "texts hidden"]]) -> Float[Tensor, "texts vectors"]:
        """The match of each text with each PV, 0 to 1; NaN for all of a text with an output that is not finite."""
        joined = torch.cat([outputs[site] for site in self.sites], 1).cpu()
        match = joined.sign() @ self._signs + 0.5
        return match.masked_fill(~torch.isfinite(joined).all(1, keepdim=True), torch.nan)
