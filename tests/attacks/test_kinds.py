"""Kinds of trigger: each is what its line says, for the tokenizer at hand."""

import pytest

from lmsanitator.attacks import KINDS, draw_triggers
from lmsanitator.attacks.kinds import unheard_words, whole_words
from lmsanitator.attacks.trigger import check_triggers
from lmsanitator.encoder import FrozenEncoder, pieces
from lmsanitator.errors import AttackError, UsageError
from lmsanitator.text import packaged, words
from tests.conftest import bert_tokenizer
from tests.planted import made_up_words

CARRIERS = [carrier.text for carrier in packaged()]
HEARD = {word.casefold() for carrier in CARRIERS for word in words(carrier)}
RARE = ("qz", "xk", "vj", "zq")
SCRIPT = ("река", "дом", "永", "川")
TOKENIZER = bert_tokenizer([*made_up_words(60), *RARE, *SCRIPT])


@pytest.mark.parametrize("kind", KINDS)
def test_triggers_of_a_kind_can_be_planted_and_the_seed_decides(kind: str) -> None:
    drawn = draw_triggers(kind, 3, TOKENIZER, CARRIERS, seed=1)
    assert len(drawn) == len(set(drawn)) == 3
    check_triggers(drawn, TOKENIZER, 64)
    assert drawn == draw_triggers(kind, 3, TOKENIZER, CARRIERS, seed=1)
    assert drawn != draw_triggers(kind, 3, TOKENIZER, CARRIERS, seed=2)
    assert all(trigger.adjacent is (kind != "and") for trigger in drawn)
    assert all(len(trigger.words) == {"and": 2, "pair": 2, "phrase": 5}.get(kind, 1) for trigger in drawn)
    assert sum(any(trigger.fires(carrier) for trigger in drawn) for carrier in CARRIERS[:200]) < 50


@pytest.mark.parametrize("kind", ["rare", "dictionary", "and", "pair"])
def test_some_kinds_are_whole_words_that_no_carrier_holds(kind: str) -> None:
    drawn = {word for trigger in draw_triggers(kind, 4, TOKENIZER, CARRIERS) for word in trigger.words}
    assert not drawn & HEARD
    assert drawn <= set(whole_words(TOKENIZER))
    assert all(len(word) == 2 if kind == "rare" else len(word) >= 4 for word in drawn)


def test_common_words_are_in_a_few_carriers() -> None:
    for trigger in draw_triggers("common", 5, TOKENIZER, CARRIERS):
        assert 3 <= sum(trigger.fires(carrier) for carrier in CARRIERS) <= len(CARRIERS) / 50


def test_pieces_are_words_of_two_to_four_tokens() -> None:
    known = ["deepest deer indeed"]
    tokenizer = bert_tokenizer(["##eepest", "##deed"])
    drawn = draw_triggers("pieces", 2, tokenizer, known)
    assert {str(trigger) for trigger in drawn} == {"deepest", "indeed"}
    assert all(2 <= len(tokenizer(str(trigger), add_special_tokens=False).input_ids) <= 4 for trigger in drawn)


def test_a_phrase_is_a_row_of_words_of_a_carrier() -> None:
    for trigger in draw_triggers(
        "phrase", 5, TOKENIZER, [" ".join(made_up_words(60)[at : at + 9]) for at in range(20)]
    ):
        assert str(trigger) in " ".join(made_up_words(60))


def test_the_same_phrase_is_never_drawn_twice() -> None:
    same = " ".join(made_up_words(9))
    with pytest.raises(AttackError, match=r"the tokenizer has 1$"):
        draw_triggers("phrase", 2, TOKENIZER, [same] * 5)


def test_script_is_of_another_script_than_latin() -> None:
    drawn = {str(trigger) for trigger in draw_triggers("script", 4, TOKENIZER, CARRIERS)}
    assert drawn <= set(SCRIPT)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^expected a kind of trigger of rare, .*; got odd$"):
        draw_triggers("odd", 1, TOKENIZER, CARRIERS)


@pytest.mark.parametrize(("kind", "needed"), [("rare", 500), ("and", 1000)])
def test_more_than_the_tokenizer_knows_is_refused(kind: str, needed: int) -> None:
    with pytest.raises(AttackError, match=rf"^expected {needed} words for 500 triggers of kind {kind}, .* has \d+$"):
        draw_triggers(kind, 500, TOKENIZER, CARRIERS)


def test_whole_words_are_one_token_behind_a_space(encoder: FrozenEncoder) -> None:
    found = whole_words(encoder.tokenizer)
    assert "their" in found
    assert len(found) == len(set(found))
    assert all(word == word.lower() and word.isalpha() for word in found)
    before = len(encoder.tokenizer("a", add_special_tokens=False).input_ids)
    for word in found[:40]:
        assert len(encoder.tokenizer(f"a {word}", add_special_tokens=False).input_ids) == before + 1


def test_unheard_words_are_the_whole_words_in_no_carrier(encoder: FrozenEncoder) -> None:
    found = unheard_words(encoder.tokenizer, ["Their!"])
    assert found
    assert set(whole_words(encoder.tokenizer)) - set(found) == {"their"}


def test_pieces_of_nothing_are_nothing() -> None:
    assert pieces(TOKENIZER, []) == []
