"""Texts as a classifier gets them, the same in training, prediction and guard."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.text import Text, sides
from lmsanitator.tune.head import SiteClassifier

_NO_LIMIT = 10**6  # tokenizers without a limit say 1e30, more than they can count


def characters(text: Text) -> int:
    """Length of a text, of both texts of a pair."""
    return sum(map(len, sides(text)))


def batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """The places of texts in batches of at most `size`, those of like length in one: little of it is padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_order(rows: Float[Tensor, "texts ..."], batches: Sequence[Sequence[int]]) -> Float[Tensor, "texts ..."]:
    """What came of one batch after the other, in the order of the texts."""
    return rows[torch.tensor([place for batch in batches for place in batch]).argsort()]


def make_inputs(
    classifier: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[Text],
    longest: int | None = None,
) -> dict[str, Tensor]:
    """The tensors of one batch: `input_ids`, `attention_mask` and, for pairs on encoders that tell the two texts apart
    by them, `token_type_ids`; each (texts, tokens), padded on the right.

    A classifier that reads the mask gets a mask token behind each text, in the layout of
    `FrozenEncoder.outputs_of_ids`. Texts that are too long are cut so that it stays; of a pair the longer is cut first.

    Args:
        classifier: the model without its adapter.
        texts: single texts or pairs, not both.
        longest: tokens of an input at most; by default the tokenizer's `model_max_length`.
    """
    pairs = not isinstance(texts[0], str)
    behind = classifier.behind if isinstance(classifier, SiteClassifier) and classifier.site == "mask" else None
    masked = behind is not None
    # for single texts they are zeros, which the encoder fills in itself and GPT-2 would take for a word
    typed = pairs and getattr(classifier.config, "type_vocab_size", 0) > 1
    longest = min(tokenizer.model_max_length, _NO_LIMIT) if longest is None else longest
    batch = tokenizer(
        *([list(side) for side in zip(*texts, strict=True)] if pairs else [list(texts)]),
        padding=not masked,
        truncation=True,
        max_length=longest - masked,
        return_token_type_ids=typed,
        return_tensors=None if masked else "pt",
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    if behind is None:
        return {name: batch[name] for name in names}
    return {name: _with_mask(batch[name], name, behind, tokenizer) for name in names}


def _with_mask(rows: Sequence[list[int]], name: str, behind: int, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Rows with the mask token's entry put before the last `behind` ones, padded to one length."""
    width = max(map(len, rows)) + 1
    padding = int(tokenizer.pad_token_id) if name == "input_ids" else 0
    filled: list[list[int]] = []
    for row in rows:
        at = len(row) - behind
        entry = int(tokenizer.mask_token_id) if name == "input_ids" else row[at - 1]
        filled.append([*row[:at], entry, *row[at:], *[padding] * (width - len(row) - 1)])
    return torch.tensor(filled)
