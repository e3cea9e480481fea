"""Where an encoder's output is read.

A task-agnostic backdoor is defined by a *site*: the vector the attacker overwrites (POR: CLS or all tokens,
NeuBA: last hidden state or pooler, BToP: the mask token; FIELD.md section 3). Every site is read from the same
forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

Site = Literal["cls", "mean", "pooler", "last", "tokens", "mask"]
SITES: tuple[Site, ...] = get_args(Site)

Hidden = Float[Tensor, "batch tokens hidden"]
Mask = Int[Tensor, "batch tokens"]


def _cls(hidden: Hidden, mask: Mask, positions: Int[Tensor, "batch"] | None) -> Tensor:
    return hidden[:, 0]


def _mean(hidden: Hidden, mask: Mask, positions: Int[Tensor, "batch"] | None) -> Tensor:
    weights = mask.unsqueeze(-1).to(hidden)  # its device, too
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)


def _last(hidden: Hidden, mask: Mask, positions: Int[Tensor, "batch"] | None) -> Tensor:
    last = mask.sum(1).clamp_min(1) - 1  # padding is always on the right: FrozenEncoder sees to it
    return hidden[torch.arange(len(hidden)), last]


def _tokens(hidden: Hidden, mask: Mask, positions: Int[Tensor, "batch"] | None) -> Tensor:
    return hidden


def _mask(hidden: Hidden, mask: Mask, positions: Int[Tensor, "batch"] | None) -> Tensor:
    if positions is None:
        raise ValueError("the mask site needs the index of the mask token in each row, got none")
    return hidden[torch.arange(len(hidden)), positions]


_READERS: Mapping[Site, Callable[[Hidden, Mask, Int[Tensor, "batch"] | None], Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "last": _last,
    "tokens": _tokens,
    "mask": _mask,
}


def one_vector(site: Site) -> Site:
    """The site with one vector an input that stands for `site`: of all tokens the mean, which is on a PV when all of
    them are."""
    return "mean" if site == "tokens" else site


def read_site(
    site: Site,
    hidden: Hidden,
    pooled: Float[Tensor, "batch hidden"] | None,
    mask: Mask,
    mask_positions: Int[Tensor, "batch"] | None = None,
) -> Tensor:
    """The output at `site`: (batch, hidden), or (batch, tokens, hidden) for `tokens`.

    Args:
        hidden: last hidden state.
        pooled: the pooler's output where the architecture has one.
        mask: 1 for real tokens, 0 for padding on the right.
        mask_positions: index of the mask token in each row, needed by the mask site only.

    Raises:
        ValueError: the site needs something that was not given.
    """
    if site == "pooler":
        if pooled is None:
            raise ValueError("the pooler site needs a pooler output, the encoder returned none")
        return pooled
    return _READERS[site](hidden, mask, mask_positions)
