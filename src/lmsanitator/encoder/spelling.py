"""How words are spelled in tokens."""

from collections.abc import Sequence

from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast


def pieces(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as they are inside a sentence, where most tokenizers spell it otherwise than at the
    beginning."""
    if not words:
        return []
    skipped = len(tokenizer("a", add_special_tokens=False).input_ids)
    sentences = [f"a {word}" for word in words]
    return [row[skipped:] for row in _ids_of(tokenizer, sentences)]


def _ids_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of whole texts, and nothing else: masks, and lists of everything, cost as much as the ids."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # every call of the tokenizer itself sets both anew
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def behind_a_word(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], int]:
    """Every token of the vocabulary as it reads behind the word "a", in their order, and the length of that word."""
    word = tokenizer("a", add_special_tokens=False).input_ids[-1]
    rows = [[word, token] for token in range(rows_of(tokenizer))]
    length = len(str(tokenizer.decode([word])).strip())
    return [text.lstrip() for text in tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)], length


def rows_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """How many rows of an embedding matrix a tokenizer can reach: there may be holes in a vocabulary, so that it has
    fewer entries than its largest id says."""
    return max(tokenizer.get_vocab().values()) + 1


def roles(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """The tokens that every input is framed, filled up or hidden with, and the one for what is unknown. What else a
    tokenizer declares special is a word that a text may hold as any other."""
    parts = ("cls", "sep", "bos", "eos", "pad", "mask", "unk")
    named = {str(getattr(tokenizer, f"{part}_token")) for part in parts}
    return {token: name for name, token in sorted(tokenizer.get_vocab().items()) if name in named}


def typeable(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that a text may hold: all but those with a role (`roles`) and, where the tokenizer cuts text as BERT's
    does, those that no text is ever tokenized to: it is cut inside of them, or before what only continues a word
    (`[unused7]`, and pieces of Chinese characters).

    What is not certain counts as typeable: a trigger that is left out is not found. So nothing is concluded from what
    a stranger's decoder says, nor of normalizers that are none of BERT's.
    """
    tokens = sorted({*tokenizer.get_vocab().values()} - roles(tokenizer).keys())
    if not _cuts_as_bert(tokenizer):
        return tokens
    prefix = tokenizer.backend_tokenizer.model.continuing_subword_prefix
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(tokens)]
    texts = [f"a{name.removeprefix(prefix)}" if name.startswith(prefix) else f"a {name}" for name in names]
    added = set(tokenizer.get_added_vocab().values())
    return [
        token
        for token, text, row in zip(tokens, texts, _ids_of(tokenizer, texts), strict=True)
        if token in row or token in added or not _always_cut(tokenizer, text)
    ]


def _cuts_as_bert(tokenizer: PreTrainedTokenizerFast) -> bool:
    backend = tokenizer.backend_tokenizer
    return (
        isinstance(backend.model, WordPiece)
        and isinstance(backend.normalizer, BertNormalizer | None)
        and isinstance(backend.pre_tokenizer, BertPreTokenizer)
    )


def _always_cut(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether what stands behind the letter a in a text can be no one token: texts are cut into parts first, and no
    token reaches from one into the next. What continues the word has to be in its part."""
    backend = tokenizer.backend_tokenizer
    normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    behind = text[1:].strip()
    if not normal.endswith(behind):  # a letter that is always written otherwise
        return True
    first = len(normal) - len(behind) if text[1:2] == " " else 0
    parts = [span for _, span in backend.pre_tokenizer.pre_tokenize_str(normal)]
    return not any(start <= first for start, end in parts if end == len(normal))
