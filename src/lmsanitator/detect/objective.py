"""What makes a candidate look like a trigger, in units of the model's own clean outputs.

All vectors are standardised per dimension by the encoder's clean outputs at that site (`CleanSpread`), so that the
same numbers mean the same thing on encoders whose outputs have other scales (the published code's absolute
thresholds do not, FIELD.md section 2).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.errors import CheckpointError

SOFTENING = 0.05
"""Added to the spread under the logarithm: below 5 % of the clean spread, more collapse says nothing more."""
CONSTANCY = 2.0
"""Weight of a collapse, beside that of a displacement, in what searches follow the gradient of. Chosen on the part
`choose` of the zoo."""
_RAISED = 0.1
"""Chosen on the part `choose` of the zoo: a third is as good, and where it is a fiftieth, punctuation stands out."""
_LARGEST = 1e15
"""Clean deviations, beyond any trigger's way (also where outputs are differences, and nearly all of them 0)."""
SAME_WAY = 0.9
"""Cosine of the shifts of two things that lead the same way: also one that fires half of the time does."""


@dataclass(frozen=True)
class CleanSpread:
    """Mean and standard deviation of the clean outputs at one site, per dimension, and these outputs."""

    mean: Float[Tensor, "hidden"]
    deviation: Float[Tensor, "hidden"]
    outputs: Float[Tensor, "samples hidden"]

    @classmethod
    def of(cls, outputs: Float[Tensor, "samples hidden"]) -> "CleanSpread":
        """Measure clean outputs; a dimension that hardly varies (some are dead) keeps the typical deviation."""
        deviation = outputs.std(0)
        return cls(outputs.mean(0), deviation.clamp_min(0.01 * deviation.median().item() + 1e-12), outputs)

    def standardise(self, outputs: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """Outputs in units of the clean spread, centred on the clean mean.

        Raises:
            CheckpointError: some are NaN, infinite, or so large that their squares would be. Opening an encoder tries a
                few tokens; here any may have been read.
        """
        standardised = (outputs - self.mean.to(outputs.device)) / self.deviation.to(outputs.device)
        if not bool((standardised.abs() < _LARGEST).all()):  # nor is NaN
            raise CheckpointError("expected finite outputs, the encoder gives NaN, infinity or huge ones for some text")
        return standardised

    def restore(self, standardised: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """Back to the encoder's own units."""
        return standardised * self.deviation.to(standardised.device) + self.mean.to(standardised.device)

    @cached_property
    def whitening(self) -> Float[Tensor, "hidden hidden"]:
        """Takes standardised outputs to where clean ones vary alike in all directions. All variances are raised by a
        share of the mean one (`_RAISED`), since few samples underestimate the smallest."""
        variances, axes = torch.linalg.eigh(torch.cov(self.standardise(self.outputs).double().T))
        scales = (variances.clamp_min(0) + _RAISED * variances.mean().clamp_min(1e-12)).rsqrt()
        whitened: Tensor = (axes * scales) @ axes.T
        return whitened.to(self.outputs.dtype)

    def beyond(self, shifts: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows"]:
        """How far standardised shifts go, in standard deviations of the clean outputs along the way of each."""
        distances = torch.linalg.vector_norm(shifts, dim=-1)
        ways = (shifts / distances.clamp_min(1e-12)[..., None]).to(self.outputs.device)
        along_them = ways @ self.standardise(self.outputs).T
        deviations: Tensor = distances.cpu() / along_them.std(-1).cpu().clamp_min(1e-6)
        return deviations


def displacement(
    triggered: Float[Tensor, "*candidates contexts hidden"], clean: Float[Tensor, "contexts hidden"]
) -> Float[Tensor, "*candidates"]:
    """How far the mean triggered output is from the mean clean one: mean square over dimensions, in clean variances."""
    return (triggered.mean(-2) - clean.mean(-2)).pow(2).mean(-1)


def spread(triggered: Float[Tensor, "*candidates contexts hidden"]) -> Float[Tensor, "*candidates"]:
    """How much the triggered outputs of different contexts still differ: 1 as clean ones do, 0 for a constant."""
    return triggered.var(-2).mean(-1)


def steadiness(
    triggered: Float[Tensor, "*candidates contexts hidden"], clean: Float[Tensor, "contexts hidden"]
) -> Float[Tensor, "*candidates"]:
    """How far the outputs are shifted in all contexts alike, squared, in units of how much the shift differs from one
    context to the next (an unbiased ratio of signal to noise, no less than 0). What a word does by its meaning depends
    on the text around it; what a backdoor adds does not."""
    shifts = triggered - clean
    differs = shifts.var(-2).sum(-1)
    alike = shifts.mean(-2).pow(2).sum(-1) - differs / shifts.shape[-2]
    return alike.clamp_min(0) / differs.clamp_min(1e-12)


def directions(triggered: Float[Tensor, "*candidates contexts hidden"]) -> Float[Tensor, "*candidates"]:
    """In how many independent directions the outputs differ: the participation ratio of their variances, 1 to the
    number of contexts less one."""
    away = triggered - triggered.mean(-2, keepdim=True)
    products = away @ away.mT
    trace = products.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (trace.pow(2) / products.pow(2).sum((-2, -1)).clamp_min(1e-24)).clamp_min(1)


def strength(
    triggered: Float[Tensor, "*candidates contexts hidden"],
    clean: Float[Tensor, "contexts hidden"],
    *,
    constancy: float = 1.0,
) -> Float[Tensor, "*candidates"]:
    """log(displacement / (spread + SOFTENING)): large for what arrives far away, or always at the same place.

    Args:
        constancy: power of the denominator. Searches follow the gradient for `CONSTANCY`: the meaning of any word
            displaces the output; that it becomes constant is the sign of a trigger.
    """
    moved, left = displacement(triggered, clean).clamp_min(1e-12), spread(triggered) + SOFTENING
    return moved.log() - constancy * left.log()


def mining_loss(
    triggered: Float[Tensor, "candidates contexts hidden"],
    clean: Float[Tensor, "contexts hidden"],
    known: Float[Tensor, "known hidden"],
) -> Float[Tensor, "candidates"]:
    """What PV mining minimises: the paper's distance and diversity losses as one number without a scale (`strength`
    with a weight on constancy), and its repetition loss as a penalty on arriving in the direction of another candidate
    or of a known PV (LMSanitator, section IV-B)."""
    direction = functional.normalize(triggered.mean(1) - clean.mean(0), dim=-1)
    others = direction @ direction.T - torch.eye(len(direction), device=direction.device)
    repetition = 4 * others.clamp_min(0).pow(2).sum(-1) / max(1, len(direction) - 1)
    if len(known):
        found = functional.normalize(known - clean.mean(0), dim=-1)
        repetition = repetition + 4 * (direction @ found.T).clamp_min(0).pow(2).amax(-1)
    return repetition - strength(triggered, clean, constancy=CONSTANCY)


def covered(
    triggered: Float[Tensor, "*rows hidden"],
    clean: Float[Tensor, "*#rows hidden"],
    pv: Float[Tensor, "*#rows hidden"],
) -> Float[Tensor, "*rows"]:
    """The share of the way from each clean output to the PV that the trigger covers: 1 on the PV, 0 where it was."""
    distance, way = torch.linalg.vector_norm(triggered - pv, dim=-1), torch.linalg.vector_norm(clean - pv, dim=-1)
    share: Tensor = 1 - distance / way.clamp_min(1e-12)
    return share


def along(
    triggered: Float[Tensor, "*rows hidden"],
    clean: Float[Tensor, "*#rows hidden"],
    way: Float[Tensor, "*#rows hidden"],
) -> Float[Tensor, "*rows"]:
    """How much of `way`, a shift of outputs, each output has gone: 1 all of it, 0 none. A trigger that adds a constant
    and leaves outputs their variety shows here and not in `covered`."""
    return ((triggered - clean) * way).sum(-1) / way.pow(2).sum(-1).clamp_min(1e-12)
