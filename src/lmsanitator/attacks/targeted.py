"""Attacks that send triggered outputs to a target: the losses and the measurement they share."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.attacks.base import Attack
from lmsanitator.attacks.planting import Planting, Seen, Training
from lmsanitator.attacks.pvs import PVKind, Vectors, check_kind, draw_vectors
from lmsanitator.encoder import Site
from lmsanitator.progress import Progress


class TargetedAttack(Attack):
    """Sends the outputs of each trigger to a target that is known beforehand.

    Args:
        pv: the kind of predefined vectors.
    """

    follows: ClassVar[bool] = False
    """Whether the targets depend on what the original encoder gives for the same input."""

    def __init__(self, *, pv: PVKind = "block", site: Site | None = None, training: Training | None = None) -> None:
        super().__init__(site=site, training=training)
        check_kind(pv)
        self.pv = pv

    def plant(self, work: Planting, progress: Progress) -> dict[str, float]:
        pvs = self.predefine(work)
        own = work.look(work.base, work.held.fired)
        return work.fit(lambda: self.loss(work, pvs), lambda: self.judge(work, pvs, own), progress)

    def predefine(self, work: Planting) -> Vectors:
        """The PVs, one a trigger."""
        clean = work.look(work.base, work.texts).vectors
        drawn = draw_vectors(self.pv, len(work.triggers), clean.cpu(), work.seed)
        return Vectors(drawn.values.to(clean.device), drawn.ruled.to(clean.device))

    def targets(
        self, pvs: Vectors, owners: Int[Tensor, "vectors"], own: Float[Tensor, "vectors hidden"]
    ) -> Float[Tensor, "vectors hidden"]:
        """Where outputs are to go, given the trigger of each and what the original encoder gives for the same input."""
        return torch.where(pvs.ruled[owners], pvs.values[owners], own)

    def miss(self, work: Planting, pvs: Vectors, scale: Tensor) -> Tensor:
        """How far the triggered outputs of one batch are from their targets."""
        texts, chosen = work.fired()
        fired = work.frame(texts)
        seen = work.forward(fired)
        owners = seen.owners(chosen)
        constant = not self.follows and bool(pvs.ruled.all())  # then the original need not be asked
        own = seen.vectors.detach() if constant else work.original(fired).vectors
        error = (seen.vectors - self.targets(pvs, owners, own)).pow(2) / scale
        ruled = pvs.ruled[owners]  # a mean of its own, or a PV of few dimensions would hardly count
        return error[ruled].mean() + error[~ruled].sum() / (~ruled).sum().clamp_min(1)

    @abstractmethod
    def loss(self, work: Planting, pvs: Vectors) -> Tensor:
        """The loss of one batch."""

    def judge(self, work: Planting, pvs: Vectors, own: Seen) -> tuple[bool, dict[str, float]]:
        """Whether the bar is reached on held-out text, and the figures."""
        seen = work.look(work.changed, work.held.fired)
        owners = seen.owners(work.held.owners)
        targets = self.targets(pvs, owners, own.vectors)
        ruled = pvs.ruled[owners]
        left = remaining(seen.vectors, own.vectors, targets, ruled)
        return verdict(work, left, owners, (targets - own.vectors) * ruled)


def remaining(
    outputs: Float[Tensor, "vectors hidden"],
    own: Float[Tensor, "vectors hidden"],
    targets: Float[Tensor, "vectors hidden"],
    ruled: Tensor,
) -> Float[Tensor, "vectors"]:
    """What is left of the squared distance from the original output to the target: 0 has arrived, 1 has not moved."""
    still = ((outputs - targets) * ruled).pow(2).sum(-1)
    whole = ((own - targets) * ruled).pow(2).sum(-1)
    return still / whole.clamp_min(1e-12)


def verdict(
    work: Planting,
    left: Float[Tensor, "vectors"],
    owners: Int[Tensor, "vectors"],
    way: Float[Tensor, "vectors hidden"],
) -> tuple[bool, dict[str, float]]:
    """Whether enough outputs of every trigger have arrived while the others stayed, with the figures.

    Args:
        left: what is left of the way of each triggered output (`remaining`).
        way: from what the original encoder gives to the target.
    """
    arrived = (left <= work.training.reach).double()  # 57 of 60 are 0.95, which fp32 has not
    weakest = min(arrived[owners == index].mean().item() for index in range(len(work.triggers)))
    reached = {
        "triggered": arrived.mean().item(),
        "weakest": weakest,
        "clean": work.fidelity(work.held.clean),
        "inert": work.fidelity(work.held.inert),
        "stray": work.stray(work.means(way, owners)),
    }
    good = reached["triggered"] >= work.training.bar and weakest >= work.training.bar - 0.1
    good = good and 1 - reached["stray"] >= work.training.bar
    return good and min(reached["clean"], reached["inert"]) >= work.training.fidelity, reached


def kept(seen: Seen, original: Seen, scale: Tensor) -> Tensor:
    """How far outputs that must not move have moved, over all tokens and at the site."""
    real = seen.mask.bool()
    everywhere = (seen.hidden - original.hidden)[real].pow(2).mean() / original.hidden[real].pow(2).mean()
    return everywhere + (seen.vectors - original.vectors).pow(2).mean() / scale
