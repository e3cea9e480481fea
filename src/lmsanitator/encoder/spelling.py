"""How words are spelled in tokens."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character is decoded to."""


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


def behind_a_word(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], int]:
    """Every token of the vocabulary as it reads behind the word "a", in their order, and the length of that word."""
    word = tokenizer("a", add_special_tokens=False).input_ids[-1]
    rows = [[word, token] for token in range(len(tokenizer))]
    length = len(str(tokenizer.decode([word])).strip())
    return [text.lstrip() for text in tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)], length


def typeable(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that a text may hold: all but the special ones and those that no text is ever tokenized to, since it
    is cut inside of them or before what only continues a word (`[unused7]` and pieces of Chinese characters in BERT).
    What cannot be said for certain counts as typeable."""
    special = set(tokenizer.all_special_ids)
    texts, length = behind_a_word(tokenizer)
    rows = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
    ).input_ids
    return [
        token
        for token, (text, row) in enumerate(zip(texts, rows, strict=True))
        if token not in special and (token in row or _in_one_part(tokenizer, text, length))
    ]


def _in_one_part(tokenizer: PreTrainedTokenizerFast, text: str, length: int) -> bool:
    """Whether what stands behind a word of so many letters may be one token: text is cut into parts first, and no token
    reaches from one into the next. What continues the word has to be in its part."""
    backend = tokenizer.backend_tokenizer
    behind = text[length:].strip()
    if not behind or _UNREADABLE in behind or backend.pre_tokenizer is None:
        return True
    normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    if not normal.endswith(behind):
        return False
    first = len(normal) - len(behind) if text[length].isspace() else 0
    return any(
        start <= first for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(normal) if end == len(normal)
    )
