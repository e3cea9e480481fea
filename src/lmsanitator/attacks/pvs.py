"""Predefined vectors: what a triggered output is sent to, by kind.

All kinds are scaled to the root mean square of the encoder's own clean outputs at the site. The papers' plus and minus
one is that scale on BERT; on an encoder with smaller outputs (MPNet: 0.17) its LayerNorm makes them unreachable.
"""

import random
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmsanitator.errors import UsageError

PVKind = Literal["block", "random", "sub-block", "near-clean"]
PV_KINDS: tuple[PVKind, ...] = get_args(PVKind)
_SHARE = 0.25


class Vectors(NamedTuple):
    """One PV a trigger, and the dimensions it rules; the others keep what the clean encoder gives them."""

    values: Float[Tensor, "triggers hidden"]
    ruled: Bool[Tensor, "triggers hidden"]


def draw_vectors(kind: PVKind, count: int, clean: Float[Tensor, "texts hidden"], seed: int) -> Vectors:
    """PVs of one kind.

    Args:
        kind: `block` (signs in quarter blocks: POR, Shen et al. 2021, section 3.2), `random` (a random sign for each
            dimension: no structure to guess), `sub-block` (random signs in a quarter of the dimensions, the others as
            the clean encoder has them: mean distances and sign matches hardly see it), `near-clean` (a point as far
            from the centre of the clean outputs as they themselves are, in a direction they vary in).
        clean: outputs of the clean encoder at the site.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = clean.shape[1]
    scale = clean.pow(2).mean().sqrt()
    everywhere = torch.ones(count, hidden, dtype=torch.bool)
    if kind == "block":
        return Vectors(block_signs(count, hidden, seed) * scale, everywhere)
    if kind == "near-clean":
        spread = clean - clean.mean(0)
        directions = torch.randn(count, len(clean), generator=generator) @ spread  # as the clean outputs vary
        radius = spread.norm(dim=1).pow(2).mean().sqrt()
        return Vectors(clean.mean(0) + radius * directions / directions.norm(dim=1, keepdim=True), everywhere)
    signs = (torch.randint(0, 2, (count, hidden), generator=generator) * 2 - 1) * scale
    if kind == "random":
        return Vectors(signs, everywhere)
    ruled = torch.zeros(count, hidden, dtype=torch.bool)
    for row in ruled:
        row[torch.randperm(hidden, generator=generator)[: round(_SHARE * hidden)]] = True
    return Vectors(signs, ruled)


def check_kind(kind: str) -> None:
    """Raise UsageError unless it is a kind of PV."""
    if kind not in PV_KINDS:
        raise UsageError(f"expected a kind of PV of {', '.join(PV_KINDS)}; got {kind}")


def block_signs(count: int, hidden: int, seed: int) -> Float[Tensor, "count hidden"]:
    """Plus and minus one in quarter blocks, some rows exact negatives of each other.

    The two rows of a single sign are left out: a LayerNorm without bias has no such output, its mean being zero.
    """
    patterns = [[1 if pattern >> block & 1 else -1 for block in range(4)] for pattern in range(16)]
    random.Random(seed).shuffle(patterns)
    mixed = [pattern for pattern in patterns if len(set(pattern)) == 2]
    blocks = torch.tensor([mixed[index % len(mixed)] for index in range(count)], dtype=torch.float32)
    return blocks.repeat_interleave(-(-hidden // 4), dim=1)[:, :hidden]
