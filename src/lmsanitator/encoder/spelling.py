"""How words are spelled in tokens."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast


def pieces(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as they are inside a sentence, where most tokenizers spell it otherwise than at the
    beginning."""
    if not words:
        return []
    skipped = len(tokenizer("a", add_special_tokens=False).input_ids)
    sentences = [f"a {word}" for word in words]
    ids_alone = {"return_attention_mask": False, "return_token_type_ids": False}  # masks cost as much as the ids
    rows: list[list[int]] = tokenizer(sentences, add_special_tokens=False, **ids_alone).input_ids
    return [row[skipped:] for row in rows]
