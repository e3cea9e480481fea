"""How words are spelled in tokens."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast


def pieces(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as they are inside a sentence, where most tokenizers spell it otherwise than at the
    beginning."""
    if not words:
        return []
    skipped = len(tokenizer("a", add_special_tokens=False).input_ids)
    rows: list[list[int]] = tokenizer([f"a {word}" for word in words], add_special_tokens=False).input_ids
    return [row[skipped:] for row in rows]
