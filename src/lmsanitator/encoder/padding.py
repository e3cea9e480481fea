"""Token sequences of unlike length as one batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
    """Ids, padded on the right to the longest row, and their mask: 1 for real tokens, 0 for padding."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return ids, (torch.arange(width) < lengths[:, None]).long()
