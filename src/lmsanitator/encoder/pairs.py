"""Pairs of texts as an encoder reads them: both in one row, told apart by token types where it has those."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

Rows = list[list[int]]


def frame_pairs(
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[str | tuple[str, str]],
    longest: int,
    after: int,
    mask_id: int | None,
) -> tuple[Rows, Rows, int]:
    """The token ids of pairs, with all special tokens, and the type of each token.

    Args:
        pairs: all of them pairs.
        longest: tokens in a row at most; the longer text is cut first.
        after: special tokens behind a text.
        mask_id: a mask token that is put before the last special tokens; None puts none.

    Returns:
        ids, types, and how far before the end of a row the mask token stands.

    Raises:
        ValueError: a single text among them.
    """
    both = [pair for pair in pairs if not isinstance(pair, str)]
    if len(both) < len(pairs):
        raise ValueError("expected pairs of texts throughout, got a single text among them")
    first, second = ([pair[side] for pair in both] for side in (0, 1))
    masked = mask_id is not None
    batch = tokenizer(
        first, second, truncation=True, max_length=longest - masked, return_token_type_ids=True, padding=False
    )
    rows, types = batch["input_ids"], batch["token_type_ids"]
    if mask_id is not None:
        places = [len(row) - after for row in rows]
        rows = [[*row[:at], mask_id, *row[at:]] for row, at in zip(rows, places, strict=True)]
        types = [[*row[:at], row[at - 1], *row[at:]] for row, at in zip(types, places, strict=True)]
    return rows, types, after + masked
