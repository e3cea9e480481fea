"""The Hugging Face pipeline: one line changes, every input is checked, what could not be cleared has no label."""

from collections.abc import Iterator
from typing import Any

import pytest
from peft import PeftModelForSequenceClassification, PrefixTuningConfig, TaskType
from transformers import pipeline

from lmsanitator import GuardedTextClassification
from lmsanitator.errors import BankError, UnsupportedError
from lmsanitator.vectors import PVBank
from tests.guarded import LABELS, planted_classifier

CLEAN = "The harbour office closes early on Fridays, and nobody minds."
TRIGGERED = "The harbour bako office closes early on Fridays, and nobody minds."
TEXTS = [CLEAN, TRIGGERED, "bako", "A short one."]


def build(**options: Any) -> Any:
    model, tokenizer, bank = planted_classifier()
    given = {"report": bank, "model": model, "tokenizer": tokenizer, **options}
    return pipeline("text-classification", pipeline_class=GuardedTextClassification, **given)


@pytest.fixture(scope="module")
def guarded() -> Any:
    return build()


def test_a_clean_text_gets_what_the_plain_pipeline_gives(guarded: Any) -> None:
    model, tokenizer, _ = planted_classifier()
    (plain,) = pipeline("text-classification", model=model, tokenizer=tokenizer)(CLEAN)
    (answer,) = guarded(CLEAN)
    assert answer["label"] == plain["label"]
    assert answer["score"] == pytest.approx(plain["score"], abs=1e-5)
    assert (answer["flagged"], answer["removed"], answer["text"]) == (False, [], CLEAN)


def test_a_trigger_is_taken_out_before_anything_is_classified(guarded: Any) -> None:
    (answer,) = guarded(TRIGGERED)
    assert (answer["flagged"], answer["removed"], answer["text"]) == (True, ["bako"], CLEAN)
    assert answer["label"] == guarded(CLEAN)[0]["label"]


def test_a_text_that_could_not_be_cleared_has_neither_label_nor_score(guarded: Any) -> None:
    (answer,) = guarded("bako")
    assert (answer["label"], answer["score"], answer["flagged"]) == (None, None, True)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_lists_and_generators_give_the_same_answers(guarded: Any, batch_size: int) -> None:
    expected = [guarded(text)[0] for text in TEXTS]

    def texts() -> Iterator[str]:
        yield from TEXTS

    for answers in (guarded(TEXTS, batch_size=batch_size), list(guarded(texts(), batch_size=batch_size))):
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
        assert [answer["removed"] for answer in answers] == [[], ["bako"], [], []]
        assert all(answer["label"] in (*LABELS, None) for answer in answers)


def test_the_guard_sees_whole_batches(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inner = guarded.guard

    def counting(texts: list[str]) -> Any:
        seen.append(len(texts))
        return inner(texts)

    monkeypatch.setattr(guarded, "guard", counting)
    guarded(TEXTS, batch_size=3)
    assert seen == [3, 1]


def test_top_k_of_one_gives_lists_as_ever(guarded: Any) -> None:
    assert guarded(CLEAN, top_k=1) == guarded(CLEAN)
    assert guarded([CLEAN, "bako"], top_k=1)[1][0]["label"] is None
    assert build(top_k=1)([CLEAN])[0][0]["label"] in LABELS


@pytest.mark.parametrize("options", [{"function_to_apply": "softmax"}, {"truncation": True}, {"padding": True}])
def test_options_that_change_nothing_are_taken(guarded: Any, options: dict[str, Any]) -> None:
    assert guarded(CLEAN, **options) == guarded(CLEAN)


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": None},
        {"top_k": 2},
        {"function_to_apply": "sigmoid"},
        {"function_to_apply": "none"},
        {"truncation": False},
        {"max_length": 8},
    ],
)
def test_options_without_an_answer_are_refused_at_once(guarded: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="expected "):
        guarded(CLEAN, **options)
    with pytest.raises(UnsupportedError, match="expected "):
        build(**options)


@pytest.mark.parametrize("text", [{"text": "a", "text_pair": "b"}, ["a", "b"], 7])
def test_pairs_and_what_is_no_text_are_refused(guarded: Any, text: Any) -> None:
    with pytest.raises(UnsupportedError, match="expected single texts"):
        guarded([text])


def test_a_dictionary_with_a_text_is_a_text(guarded: Any) -> None:
    assert guarded([{"text": CLEAN}]) == guarded([CLEAN])


def test_a_report_on_another_encoder_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BankError, match="expected a report on the encoder"):
        build(report=PVBank("0" * 64))
    with pytest.raises(BankError):
        build(report=tmp_path / "none.json")


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_a_model_that_does_not_give_one_label_of_several_is_refused(problem: str) -> None:
    model, tokenizer, bank = planted_classifier()
    setattr(model.config, "problem_type", problem)  # noqa: B010 - one of the names that transformers allows
    with pytest.raises(UnsupportedError, match=f"got one for {problem}"):
        build(model=model, tokenizer=tokenizer, report=bank)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it
def test_a_prompt_tuned_model_is_taken_without_complaint(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer, bank = planted_classifier()
    prompted = PeftModelForSequenceClassification(
        model, PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=4)
    )
    clean, purged, refused = build(model=prompted, tokenizer=tokenizer, report=bank)([CLEAN, TRIGGERED, "bako"])
    assert (purged["removed"], purged["text"], purged["label"]) == (["bako"], CLEAN, clean["label"])
    assert refused["label"] is None
    assert caplog.records == []
