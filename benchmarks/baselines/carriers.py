"""Clean texts with a slot that a trigger goes into, as tokens and as embeddings."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import CorpusError
from lmsanitator.text import words

LAST_WORD = 32
"""A slot is behind one of the first so many words, as in LMSanitator."""


@dataclass(frozen=True)
class Slot:
    """A text's tokens, no special ones, on both sides of a word boundary."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def around(self, tokens: Sequence[int]) -> list[int]:
        """The text with `tokens` in the slot; without any it is the clean text."""
        return [*self.before, *tokens, *self.after]


def usual_site(encoder: FrozenEncoder) -> Site:
    """The site that the published detectors look at: CLS, or the last token of a decoder."""
    return "cls" if "cls" in encoder.sites else "last"


def ordinary_tokens(encoder: FrozenEncoder) -> Int[Tensor, "tokens"]:
    """All token ids but the special ones."""
    special = set(encoder.tokenizer.all_special_ids)
    return torch.tensor([index for index in range(len(encoder.tokenizer)) if index not in special])


def make_slots(encoder: FrozenEncoder, texts: Sequence[str], *, longest: int, seed: int) -> list[Slot]:
    """One slot for each text, behind a random one of its first words; texts are cut to `longest` tokens.

    Raises:
        CorpusError: fewer than two texts have a word.
    """
    rng = random.Random(seed)
    slots: list[Slot] = []
    for text in texts:
        parts = text.split()
        if not words(text):
            continue
        at = rng.randint(1, min(LAST_WORD, len(parts)))
        sides = (" ".join(parts[:at]), " " + " ".join(parts[at:]))  # the space matters to byte-level tokenizers
        before, after = (encoder.tokenizer(side, add_special_tokens=False).input_ids for side in sides)
        before = before[:longest] if parts[at:] else before[: longest - 1]
        slots.append(Slot(tuple(before), tuple(after[: longest - len(before)] if parts[at:] else ())))
    if len(slots) < 2:
        raise CorpusError(f"expected texts with words in them, {len(slots)} of {len(texts)} have any")
    return slots


def embedded(
    encoder: FrozenEncoder,
    slots: Sequence[Slot],
    soft: Float[Tensor, "slots length width"],
    padded_to: int = 0,
) -> tuple[Float[Tensor, "slots tokens width"], Int[Tensor, "slots tokens"]]:
    """Input embeddings with `soft` in the slots, and their attention mask, padded to the longest or to `padded_to`."""
    before, after = encoder.frame
    filler = int(encoder.tokenizer.pad_token_id)
    gap = [filler] * soft.shape[1]
    rows = [[*before, *slot.around(gap), *after] for slot in slots]
    width = max(padded_to, *map(len, rows))
    ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows])
    mask = (torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]).long()
    starts = torch.tensor([len(before) + len(slot.before) for slot in slots])
    inputs = encoder.embed(ids)
    inputs[torch.arange(len(rows))[:, None], starts[:, None] + torch.arange(soft.shape[1])] = soft
    return inputs, mask
