"""Where soft tokens and words are tried, gradients included: contexts with a gap, seen from one site."""

from collections.abc import Sequence
from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder, Site


class Stage:
    """The contexts, embedded once, with a gap that candidates are put into, and one site that is looked at."""

    def __init__(self, encoder: FrozenEncoder, contexts: Sequence[Context], site: Site, clean: CleanSpread) -> None:
        before, after = encoder.frame
        if site == "mask":
            after = [int(encoder.tokenizer.mask_token_id or 0), *after]
        self.encoder = encoder
        self.site = site
        self.spread = clean
        self.left = [self._embed([*before, *context.before]) for context in contexts]
        self.right = [self._embed([*context.after, *after]) for context in contexts]
        self.after = len(after)
        self.clean = self.outputs([self.left[0][:0]])[0]  # nothing in the gap

    def outputs(self, soft: Sequence[Float[Tensor, "_ width"]]) -> Float[Tensor, "candidates contexts hidden"]:
        """Standardised outputs of every candidate in every context, in one batch."""
        around = list(zip(self.left, self.right, strict=True))
        lengths = torch.tensor([len(left) + len(tokens) + len(right) for tokens in soft for left, right in around])
        width = int(lengths.max())
        filler = self.left[0].new_zeros(width, self.left[0].shape[1])
        parts: list[Tensor] = []
        for tokens in soft:
            for left, right in around:
                parts += [left, tokens, right, filler[len(left) + len(tokens) + len(right) :]]
        # of one piece: rows written one by one would each copy the whole batch in the backward pass
        padded = torch.cat(parts).view(len(lengths), width, -1)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        out = self.encoder.outputs(padded, mask, [self.site], mask_positions=lengths - self.after)[self.site]
        return self.spread.standardise(out).view(len(soft), len(self.left), -1)

    def apart(self) -> list["Stage"]:
        """Each context as a stage of its own."""
        stages: list[Stage] = []
        for place, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            stage = copy(self)
            stage.left, stage.right, stage.clean = [left], [right], self.clean[place : place + 1]
            stages.append(stage)
        return stages

    def _embed(self, ids: list[int]) -> Float[Tensor, "tokens width"]:
        return self.encoder.embed(torch.tensor([ids], dtype=torch.long))[0]
