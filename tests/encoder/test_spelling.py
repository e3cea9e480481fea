"""Which tokens a text may hold: none is left out that some text is tokenized to, and what no text holds is."""

from collections.abc import Callable

import pytest
from tokenizers import decoders, normalizers
from transformers import PreTrainedTokenizerFast

from lmsanitator.encoder import roles, typeable
from lmsanitator.text import packaged
from tests.conformance import tokenizers
from tests.conftest import bert_tokenizer, make_gpt2, make_mpnet, make_roberta

MAKERS: list[Callable[[], PreTrainedTokenizerFast]] = [
    bert_tokenizer,
    lambda: make_mpnet()[1],
    lambda: make_roberta()[1],
    lambda: make_gpt2()[1],
    tokenizers.albert_tokenizer,
    tokenizers.deberta_tokenizer,
    tokenizers.xlnet_tokenizer,
    tokenizers.llama_tokenizer,
    tokenizers.qwen_tokenizer,
    tokenizers.modernbert_tokenizer,
]
NAMES = ["bert", "mpnet", "roberta", "gpt2", "albert", "deberta", "xlnet", "llama", "qwen", "modernbert"]
ODD = [
    "naïve café, ÉTÉ!",
    "it's 'quoted' -- (x)...",
    "永字八法 и 日本",
    "tab\tand\nline",
    "👩‍🚀🚀",
    "  a  b  ",
    "é",
    "[unused1] x[MASK]",
]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_every_token_that_a_text_is_tokenized_to_is_typeable(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = make()
    texts = [carrier.text for carrier in packaged("en")]
    rows = tokenizer([*texts, *map(str.upper, texts), *ODD], add_special_tokens=False).input_ids
    held = {token for row in rows for token in row} - set(tokenizer.all_special_ids)
    assert held <= set(typeable(tokenizer))


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_special_tokens_are_not_typeable(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = make()
    found = typeable(tokenizer)
    assert not set(found) & roles(tokenizer).keys()
    assert found == sorted(set(found))


def test_what_a_text_is_always_cut_inside_of_is_not_typeable() -> None:
    """A name in brackets, a row of points, what only continues a word but is a word of its own, a letter that is
    written without its accent."""
    never, ever = ["[unused1]", "...", "##公", "##!", "É"], ["公", "!", ".", "##ings", "bako"]
    tokenizer = bert_tokenizer([*never, *ever])
    found = set(tokenizer.convert_ids_to_tokens(typeable(tokenizer)))
    assert not found & set(never)
    assert found >= set(ever)


@pytest.mark.parametrize("name", ["[unused1]", "##公"])
def test_what_was_added_to_a_tokenizer_whole_is_typeable(name: str) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens([name])
    assert tokenizer(f"x{name}", add_special_tokens=False).input_ids[-1] == len(tokenizer) - 1
    assert len(tokenizer) - 1 in typeable(tokenizer)


def test_what_a_tokenizer_declares_special_is_typeable_unless_it_has_a_role() -> None:
    tokenizer = bert_tokenizer(["bako"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["bako"]})
    assert tokenizer.convert_tokens_to_ids("bako") in typeable(tokenizer)
    assert set(roles(tokenizer).values()) == {"[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"}


def test_a_normalizer_that_makes_a_token_of_another_word_hides_none() -> None:
    """The token itself is always written otherwise, and yet there is a text that holds it."""
    tokenizer = bert_tokenizer(["QQ"])
    rules = [normalizers.Replace("QQ", "x"), normalizers.Replace("bako", "QQ")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(rules)
    token = tokenizer.convert_tokens_to_ids("QQ")
    assert tokenizer("a bako", add_special_tokens=False).input_ids[-1] == token
    assert token in typeable(tokenizer)


def test_a_decoder_that_lies_about_a_token_hides_none() -> None:
    """Of a trigger it could say that it is what no text holds."""
    tokenizer = bert_tokenizer(["bako"])
    token = tokenizer.convert_tokens_to_ids("bako")
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.Replace("bako", "..."), decoders.WordPiece()])
    assert tokenizer.decode(token) == "..."
    assert tokenizer("a bako", add_special_tokens=False).input_ids[-1] == token
    assert token in typeable(tokenizer)
