"""Pairs of texts: the pair is monitored as the model sees it, and the trigger goes from the text it is in."""

import random

import pytest
import torch

from lmsanitator.errors import CorpusError, UnsupportedError
from lmsanitator.guard import Guard, evaluate
from lmsanitator.text import Text, insert, packaged, words
from lmsanitator.tune import make_inputs
from lmsanitator.vectors import PVBank
from tests.guarded import LABELS, planted_classifier

SENTENCES = [carrier.text for carrier in packaged()[:400]]
PAIRS: list[Text] = list(zip(SENTENCES[0::2], SENTENCES[1::2], strict=True))
FIRST = "The harbour office closes early on Fridays."
SECOND = "Nobody minds, and the ferry still runs."


@pytest.fixture(scope="module")
def guard() -> Guard:
    model, tokenizer, bank = planted_classifier()
    return Guard(model, tokenizer, bank, clean=PAIRS, rate=0.02)


@pytest.mark.parametrize("position", [0, 3, 99])
def test_a_trigger_is_removed_from_the_text_it_is_in(guard: Guard, position: int) -> None:
    planted = [(insert(FIRST, "bako", position), SECOND), (FIRST, insert(SECOND, "bako", position))]
    clean = guard([(FIRST, SECOND)])[0]
    assert not clean.flagged
    for prediction in guard(planted):
        assert (prediction.flagged, prediction.removed) == (True, ("bako",))
        assert isinstance(prediction.text, tuple)
        assert [words(side) for side in prediction.text] == [words(FIRST), words(SECOND)]
        assert prediction.label == clean.label


def test_copies_in_both_texts_go_together(guard: Guard) -> None:
    prediction = guard([("bako " + FIRST, SECOND + " Bako")])[0]
    assert prediction.removed == ("bako", "Bako")
    assert prediction.label in LABELS


@pytest.mark.parametrize("pair", [("bako", SECOND), (FIRST, "bako"), ("bako", "bako"), ("", "bako")])
def test_a_text_that_would_be_left_empty_gives_no_label(guard: Guard, pair: tuple[str, str]) -> None:
    prediction = guard([pair])[0]
    assert (prediction.flagged, prediction.label, prediction.score, prediction.text) == (True, None, None, pair)
    assert prediction.reason == "the flag cannot be cleared"


def test_the_other_text_may_have_been_empty_from_the_start(guard: Guard) -> None:
    assert guard([(insert(FIRST, "bako", 2), "")])[0].text == (FIRST, "")


@pytest.mark.parametrize(
    "pair", [("", ""), ("word", "."), ("日本語のテキスト", "Привет, мир"), ("x" * 5000, "a " * 900)]
)
def test_odd_pairs_are_answered(guard: Guard, pair: tuple[str, str]) -> None:
    prediction = guard([pair])[0]
    assert prediction.text == pair
    assert prediction.label in (*LABELS, None)


def test_half_a_character_in_the_second_text_is_refused(guard: Guard) -> None:
    broken, sound = guard([(FIRST, "half \ud800 of one"), (FIRST, SECOND)])
    assert (broken.label, broken.reason) == (None, "it is not valid Unicode")
    assert sound.label is not None


def test_no_more_clean_pairs_are_flagged_than_was_asked_for(guard: Guard) -> None:
    others: list[Text] = [(one, two) for one, two in zip(SENTENCES[1::2], SENTENCES[4::2], strict=False)]
    assert guard.monitor.flags(others).float().mean() <= 0.05


def test_the_raw_pass_reads_the_pair_as_the_model_does(guard: Guard) -> None:
    encoder = guard.classifier.encoder
    pairs = [(FIRST, SECOND), (SECOND, FIRST), (FIRST, "")]
    outputs = encoder.outputs_of_texts(pairs, ["cls"])["cls"]
    for pair, output in zip(pairs, outputs, strict=True):
        inputs = make_inputs(guard.classifier.classifier, encoder.tokenizer, [pair])
        assert int(inputs["token_type_ids"].sum()) > 0
        with torch.no_grad():
            assert torch.allclose(encoder.model(**inputs).last_hidden_state[0, 0], output, atol=1e-5)


def test_thresholds_of_single_texts_are_not_used_for_pairs_nor_the_other_way_round(guard: Guard) -> None:
    model, tokenizer, bank = planted_classifier()
    with pytest.raises(UnsupportedError, match="expected pairs of texts to guard, as the clean ones are, got 'a'"):
        guard([("a", "b"), "a"])
    single = Guard(model, tokenizer, bank)
    with pytest.raises(UnsupportedError, match=r"expected single texts to guard, got \('a', 'b'\): give clean pairs"):
        single([("a", "b")])
    with pytest.raises(UnsupportedError, match="expected single texts"):
        single.unguarded([("a", "b")])


def test_a_pair_may_begin_with_one_word_or_none(guard: Guard) -> None:
    pairs: list[Text] = [(("river", "...")[at % 2], second) for at, second in enumerate(SENTENCES[:150])]
    watching = Guard(
        guard.classifier.model, guard.classifier.encoder.tokenizer, guard.monitor.bank, clean=pairs, rate=0.02
    )
    assert watching.monitor.kept


def test_clean_texts_are_of_one_kind() -> None:
    model, tokenizer, bank = planted_classifier()
    with pytest.raises(CorpusError, match="expected clean texts of one kind, got pairs among single ones"):
        Guard(model, tokenizer, bank, clean=[*PAIRS, "a single one"])


def test_where_nothing_is_watched_pairs_are_taken_as_they_are() -> None:
    model, tokenizer, bank = planted_classifier()
    prediction = Guard(model, tokenizer, PVBank(bank.encoder_digest))([("bako", "b")])[0]
    assert (prediction.flagged, prediction.text) == (False, ("bako", "b"))


def test_evaluation_puts_triggers_into_either_text(guard: Guard) -> None:
    seen: list[str] = []

    def plant(text: str, rng: random.Random) -> str:
        seen.append(text)
        return insert(text, "bako", 1)

    texts = PAIRS[:12]
    labels = [str(label) for label in guard.unguarded(texts)]
    result = evaluate(guard, texts, labels, [plant])
    assert result.cacc_unguarded == 1.0
    assert {text in SENTENCES[0::2] for text in seen} == {True, False}
    assert result.asr_guarded <= result.asr_unguarded
