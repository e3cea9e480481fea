"""CACC, ASR and the two kinds of failure, counted by hand."""

import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from lmsanitator.errors import CorpusError
from lmsanitator.guard import Evaluation, Guard, GuardedPrediction, evaluate
from lmsanitator.guard.classifier import TunedClassifier
from lmsanitator.text import Text, sides

YES, NO, NONE = "yes", "no", None
Script = Mapping[str, tuple[str | None, str | None, bool]]


class Scripted(Guard):
    """A guard that says what it is told to: for each text the plain label, the guarded label and whether it flags."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.classifier = cast(
            "TunedClassifier", SimpleNamespace(reach=lambda text, added: tuple(map(len, sides(text))))
        )

    def unguarded(self, texts: Sequence[Text]) -> list[str | None]:
        return [self.script[str(text)][0] for text in texts]

    def __call__(self, texts: Sequence[Text]) -> list[GuardedPrediction]:
        told = [self.script[str(text)] for text in texts]
        return [GuardedPrediction(one[1], 1.0, one[2], (), text) for one, text in zip(told, texts, strict=True)]


def first(text: str, rng: random.Random) -> str:
    return text + "1"


def second(text: str, rng: random.Random) -> str:
    return text + "2"


SCRIPT: Script = {
    "a": (YES, YES, False), "a1": (NO, NO, False), "a2": (YES, YES, True),
    "b": (YES, YES, True), "b1": (YES, NONE, True), "b2": (YES, YES, False),
    "c": (YES, NONE, True), "c1": (NO, NO, True), "c2": (NO, YES, True),
    "d": (YES, YES, False), "d1": (YES, YES, False), "d2": (NO, NONE, True),
    "e": (NO, NO, False),
}  # fmt: skip


def run(script: Script, texts: str, *, labels: str = YES) -> Evaluation:
    return evaluate(Scripted(script), list(texts), [labels] * len(texts), [first, second])


def test_every_share_is_what_counting_by_hand_gives() -> None:
    assert run(SCRIPT, "abcde") == Evaluation(
        cacc_unguarded=4 / 5,
        cacc_guarded=3 / 5,
        asr_unguarded=3 / 4,  # a, c and d go wrong under one trigger or the other
        asr_guarded=2 / 4,
        type_1=1 / 4,  # a1 went unnoticed
        type_2=1 / 4,  # c1 was purged of the wrong word
        false_flags=2 / 5,
        refused=2 / 8,
        purged_clean_rate=2 / 5,
        inputs=5,
        attacked_inputs=8,
    )


def test_an_input_that_fails_in_both_ways_is_one_success_of_the_attack() -> None:
    result = run({"a": (YES, YES, False), "a1": (NO, NO, False), "a2": (NO, NO, True)}, "a")
    assert (result.asr_guarded, result.type_1, result.type_2) == (1, 1, 1)


def test_what_is_classified_wrong_anyway_is_not_attacked() -> None:
    result = run({"e": (NO, NO, False)}, "e")
    assert (result.asr_unguarded, result.asr_guarded, result.attacked_inputs, result.cacc_unguarded) == (0, 0, 0, 0)


def test_a_refused_text_is_no_success_of_the_attack() -> None:
    result = run({"a": (YES, YES, False), "a1": (NO, NONE, True), "a2": (NO, NONE, True)}, "a")
    assert (result.asr_unguarded, result.asr_guarded, result.refused, result.purged_clean_rate) == (1, 0, 1, 0)


def test_without_triggers_only_clean_text_is_counted() -> None:
    result = evaluate(Scripted(SCRIPT), ["a", "b", "e"], [YES] * 3, [])
    assert (result.cacc_unguarded, result.false_flags) == (2 / 3, 1 / 3)
    assert (result.asr_unguarded, result.refused, result.attacked_inputs) == (0, 0, 0)


def test_triggers_are_planted_at_places_the_seed_draws() -> None:
    drawn: list[float] = []

    def spy(text: str, rng: random.Random) -> str:
        if text:  # asked with none what is going to be put in
            drawn.append(rng.random())
        return text

    for seed in (1, 1, 2):
        evaluate(Scripted(SCRIPT), ["a", "b"], [YES] * 2, [spy], seed=seed)
    assert drawn[:2] == drawn[2:4] != drawn[4:]


def test_nothing_to_evaluate_on_is_a_corpus_error() -> None:
    with pytest.raises(CorpusError, match=r"^expected texts to evaluate on, got none$"):
        run({}, "")
