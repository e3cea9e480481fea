"""Small tokenizers of the classes and layouts that the families of architectures come with."""

import json
from functools import cache
from typing import Any

from transformers import (
    AlbertTokenizer,
    DebertaV2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    XLNetTokenizer,
)

from tests.conftest import byte_level_bpe, framed, frequent_words

_SPACE = "▁"  # how SentencePiece writes the space before a word


@cache
def _characters() -> tuple[str, ...]:
    return (_SPACE, *map(chr, range(33, 127)))


def _pieces(*special: str) -> list[tuple[str, float]]:
    """A vocabulary of SentencePiece's unigrams: whole words are likelier than what they can be spelt with."""
    words = [_SPACE + word for word in frequent_words(300)]
    scores = dict.fromkeys(special, 0.0) | dict.fromkeys(words, -5.0)
    return list((scores | {character: -10.0 for character in _characters() if character not in scores}).items())


def albert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] a text [SEP]"""
    return AlbertTokenizer(vocab=_pieces("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))


def deberta_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] a text [SEP]; the unknown token is the fourth."""
    return DebertaV2Tokenizer(vocab=[*_pieces("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]", 0.0)], unk_id=3)


def xlnet_tokenizer() -> PreTrainedTokenizerFast:
    """a text <sep> <cls>, padded on the left."""
    special = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>")
    return XLNetTokenizer(vocab=_pieces(*special), unk_id=0, padding_side="left")


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """<s> a text, padded on the left, without a padding token, unheard-of characters spelt as bytes."""
    merges: list[tuple[str, str]] = []
    for word in frequent_words(150):
        merged = _SPACE
        for character in word:
            merges.append((merged, character))
            merged += character
    letters = [*_characters(), *sorted({right for _, right in merges} - set(_characters()))]
    listed = dict.fromkeys(
        ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
        + [left + right for left, right in merges]
    )
    vocabulary = {piece: index for index, piece in enumerate(listed)}
    return LlamaTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), add_bos_token=True, padding_side="left")


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A text and nothing around it, padded on the left."""
    raw = byte_level_bpe("<|endoftext|>")
    merges: Any = [tuple(pair) for pair in json.loads(raw.to_str())["model"]["merges"]]  # pairs are what BPE takes
    return Qwen2Tokenizer(vocab=raw.get_vocab(), merges=merges, padding_side="left")


def modernbert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] a text [SEP], of pieces of bytes."""
    special = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    return PreTrainedTokenizerFast(
        tokenizer_object=framed(byte_level_bpe(*special), "[CLS]", "[SEP]"),
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]",
    )  # fmt: skip
