"""The guard of a classifier of words: every word keeps its place, and what cannot be cleared has no labels at all."""

import random
from typing import Any

import pytest
import torch
from peft import PeftModelForTokenClassification, PromptTuningConfig, TaskType

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import BankError, CorpusError, TuningError, UsageError
from lmsanitator.guard import Guard, GuardedTags, PurgeConfig, Purged, TaggingGuard
from lmsanitator.text import packaged, words
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.guarded import BIO, planted_classifier, planted_tagger

SENTENCE = ["The", "harbour", "office", "in", "Bergen", "closes", "early", "on", "Fridays", "."]
CLEAN = [words(carrier.text) for carrier in packaged()[:400]]


@pytest.fixture(scope="module", params=[True, False], ids=["named", "blind"])
def guard(request: pytest.FixtureRequest) -> TaggingGuard:
    model, tokenizer, bank = planted_tagger()
    named = bool(request.param)
    return TaggingGuard(model, tokenizer, bank, clean=CLEAN, rate=0.01, purging=PurgeConfig(named=named))


def with_word(given: list[str], word: str, *places: int) -> list[str]:
    """The words with one more before each of the places, counted from behind so that places stay what they are."""
    planted = list(given)
    for place in sorted(places, reverse=True):
        planted.insert(place, word)
    return planted


def one(guard: TaggingGuard, given: list[str]) -> GuardedTags:
    (answer,) = guard([given])
    return answer


@pytest.mark.parametrize("place", [0, 4, 10])
@pytest.mark.parametrize("word", ["bako", "BAKO", "bako!", "(bako)"])
def test_labels_stay_aligned_to_the_words_after_purging(guard: TaggingGuard, word: str, place: int) -> None:
    clean = one(guard, SENTENCE)
    planted = with_word(SENTENCE, word, place)
    answer = one(guard, planted)
    assert (clean.flagged, answer.flagged, answer.removed) == (False, True, (place,))
    assert clean.labels is not None
    assert clean.scores is not None
    assert answer.words == tuple(planted)
    assert answer.labels == (*clean.labels[:place], "O", *clean.labels[place:])
    assert answer.scores is not None
    assert answer.scores[place] is None
    assert [score for score in answer.scores if score is not None] == pytest.approx(clean.scores, abs=1e-5)


def test_a_sentence_without_a_trigger_gets_what_the_model_says(guard: TaggingGuard) -> None:
    answers = guard(CLEAN[:20])
    said = guard.unguarded(CLEAN[:20])
    assert [answer.labels for answer in answers if not answer.flagged] == [
        tuple(labels) for answer, labels in zip(answers, said, strict=True) if not answer.flagged
    ]
    assert sum(answer.flagged for answer in answers) <= 1


@pytest.mark.parametrize("given", ["one sentence", ["one sentence"]])
def test_strings_are_not_taken_for_words_of_one_letter(guard: TaggingGuard, given: Any) -> None:
    with pytest.raises(UsageError, match="expected sentences as lists of their words"):
        guard(given)


def test_all_copies_go_and_each_place_keeps_a_label(guard: TaggingGuard) -> None:
    answer = one(guard, with_word(SENTENCE, "bako", 0, 4, 10))
    assert answer.removed == (0, 5, 12)
    assert answer.labels is not None
    assert len(answer.labels) == len(SENTENCE) + 3
    assert {answer.labels[at] for at in answer.removed} == {"O"}


@pytest.mark.parametrize("given", [["bako"], ["bako", "bako"], ["bako", ""], ["bako", " ", ""]])
def test_an_unpurgeable_sentence_has_no_labels(guard: TaggingGuard, given: list[str]) -> None:
    answer = one(guard, given)
    assert (answer.flagged, answer.labels, answer.scores) == (True, None, None)
    assert answer.reason == "the flag cannot be cleared"
    assert answer.words == tuple(given)


def test_a_flag_that_stays_on_what_is_left_gives_no_labels(
    guard: TaggingGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lmsanitator.guard.tagging.purge_parts", lambda parts, *rest: [Purged("", ("in",), 1, (3,))] * len(parts)
    )
    assert one(guard, with_word(SENTENCE, "bako", 8)).labels is None


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["word"],
        [".", ",", "!?", "…"],
        ["日本語", "の", "テキスト"],
        ["Привет", "мир"],
        ["a", "", "\u200b", " ", "b"],
        ["New York", "two words in one"],
        ["water"] * 600,
    ],
)
def test_every_word_of_an_odd_sentence_gets_a_label_or_none_does(guard: TaggingGuard, given: list[str]) -> None:
    answer = one(guard, given)
    assert answer.words == tuple(given)
    assert (answer.labels is None) == (answer.reason is not None)
    if answer.labels is not None:
        assert len(answer.labels) == len(given)
        assert {answer.labels[at] for at in (*answer.unread, *answer.removed)} <= {"O"}


def test_words_that_the_tokenizer_makes_nothing_of_are_said_to_be_unread(guard: TaggingGuard) -> None:
    answer = one(guard, ["The", "", "harbour", " ", "office"])
    assert answer.unread == (1, 3)
    assert answer.scores is not None
    assert [score is None for score in answer.scores] == [False, True, False, True, False]


def test_words_behind_the_window_are_said_to_be_unread() -> None:
    model, tokenizer, bank = planted_tagger()
    guard = TaggingGuard(model, tokenizer, PVBank(bank.encoder_digest))
    answer = one(guard, ["water"] * 600)
    assert answer.unread == tuple(range(guard.tagger.longest - 2, 600))
    assert answer.labels is not None
    assert len(answer.labels) == 600


def test_half_a_character_is_refused_and_the_other_sentences_answered(guard: TaggingGuard) -> None:
    broken, sound = guard([["half", "\ud800"], SENTENCE])
    assert (broken.labels, broken.reason) == (None, "it is not valid Unicode")
    assert sound.labels is not None
    assert guard([]) == []


def test_logits_that_are_not_finite_give_no_labels() -> None:
    model, tokenizer, bank = planted_tagger()
    guard = TaggingGuard(model, tokenizer, bank)
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    assert all(answer.labels is None for answer in guard([SENTENCE, ["word"]]))


def test_many_planted_sentences_are_purged_of_the_trigger_alone(guard: TaggingGuard) -> None:
    rng = random.Random(0)
    places = [rng.randint(0, len(given)) for given in CLEAN[:30]]
    answers = guard([with_word(given, "bako", place) for given, place in zip(CLEAN[:30], places, strict=True)])
    assert all(place in answer.removed for answer, place in zip(answers, places, strict=True))
    assert sum(len(answer.removed) > 1 for answer in answers) <= 1, "but for a sentence that is flagged without it"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_virtual_tokens_before_the_text_do_not_shift_the_labels() -> None:
    model, tokenizer, bank = planted_tagger()
    prompted = PeftModelForTokenClassification(
        model, PromptTuningConfig(task_type=TaskType.TOKEN_CLS, num_virtual_tokens=5)
    )
    guard = TaggingGuard(prompted, tokenizer, bank)
    inputs = tokenizer(" ".join(SENTENCE), return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = prompted(**inputs).logits[0, 5:]
    starts = [inputs.char_to_token(len(" ".join([*SENTENCE[:at], ""]))) for at in range(len(SENTENCE))]
    assert guard.unguarded([SENTENCE])[0] == [BIO[int(logits[at].argmax())] for at in starts]
    assert one(guard, with_word(SENTENCE, "bako", 4)).removed == (4,)


def test_each_guard_takes_its_own_kind_of_model() -> None:
    model, tokenizer, bank = planted_tagger()
    with pytest.raises(TuningError, match="expected a classifier of texts, got BertForTokenClassification"):
        Guard(model, tokenizer, bank)
    texts, tokenizer, bank = planted_classifier()
    with pytest.raises(TuningError, match="expected a token classifier, got BertForSequenceClassification"):
        TaggingGuard(texts, tokenizer, bank)


def test_labels_that_are_not_bio_and_reports_on_other_encoders_are_refused() -> None:
    model, tokenizer, bank = planted_tagger()
    with pytest.raises(BankError, match="expected a report on the encoder of this model"):
        TaggingGuard(model, tokenizer, PVBank("0" * 64, [PredefinedVector("tokens", bank[0].values)]))
    with pytest.raises(CorpusError, match="clean texts or more for a false-flag rate"):
        TaggingGuard(model, tokenizer, bank, clean=CLEAN[:20])
    model.config.id2label = {0: "O", 1: "place", 2: "I-place"}
    with pytest.raises(TuningError, match=r"expected the label O and different labels .*, got place"):
        TaggingGuard(model, tokenizer, bank)


def test_a_vector_of_a_site_the_model_does_not_have_is_recorded_as_dropped() -> None:
    model, tokenizer, bank = planted_tagger()
    pooled = PredefinedVector("pooler", bank[0].values)
    digest = FrozenEncoder(model.bert, tokenizer).digest
    guard = TaggingGuard(model, tokenizer, PVBank(digest, [pooled, bank[0]]))
    assert guard.monitor.kept == (1,)
    assert guard.monitor.remarks == ["PV 0 (no trigger named) is not watched: this model has no pooler"]
    assert one(guard, with_word(SENTENCE, "bako", 2)).pv == 1
