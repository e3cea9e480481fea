"""Purging: the shortest deletion that clears the flag, found in few rounds, whatever stands in the text how often."""

import random
from collections.abc import Sequence

import pytest

from lmsanitator.guard import Check, Guard, PurgeConfig, purge, purge_all
from lmsanitator.guard.parts import TextParts
from lmsanitator.guard.search import search
from lmsanitator.text import insert, packaged, spans, words
from tests.conftest import WINDOW
from tests.guard.test_guard import PLANTED, bank_of, classifier

SENTENCES = [carrier.text for carrier in packaged()]


@pytest.fixture(scope="module")
def guard() -> Guard:
    """Knows the PVs, not the triggers."""
    model, tokenizer, pvs = classifier(*PLANTED)
    return Guard(model, tokenizer, bank_of(model, tokenizer, pvs, named=False))


def long_text(seed: int, *added: str, least: int = 60) -> str:
    rng = random.Random(seed)
    joined = " ".join(" ".join(rng.choices(SENTENCES, k=least // 5)).split()[:least])
    for word in added:
        joined = insert(joined, word, rng.randint(0, len(spans(joined))))
    return joined


@pytest.mark.parametrize(
    ("added", "rounds"),
    [
        (["bako"], 3),
        (["bako"] * 3, 3),
        (["bako", "kifa"], 3),
        (["bako", "kifa", "bako", "kifa"], 3),
        (["dilu", "vedi"], 3),
        (["dilu", "vedi", "dilu"], 3),
        (["bako", "dilu", "vedi"], 7),
    ],
    ids=str,
)
def test_a_text_of_sixty_words_is_purged_blindly_in_few_rounds(guard: Guard, added: list[str], rounds: int) -> None:
    texts = [long_text(seed, *added) for seed in range(6)]
    assert guard.monitor.flags(texts).all()
    for text, result in zip(texts, purge_all(texts, guard.monitor, PurgeConfig()), strict=True):
        assert result is not None
        assert set(result.removed) <= set(added)
        assert result.batches <= rounds
        assert len(words(str(result.text))) == len(words(text)) - len(result.removed)


@pytest.mark.parametrize("added", [["dilu", "vedi"], ["bako", "dilu", "vedi"]], ids=" ".join)
def test_of_an_and_trigger_one_word_goes(guard: Guard, added: list[str]) -> None:
    results = purge_all([long_text(seed, *added) for seed in range(6)], guard.monitor, PurgeConfig())
    assert all(result is not None and len(result.removed) == len(added) - 1 for result in results)


@pytest.fixture
def asked(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts the monitor was asked about, in each round."""
    rounds: list[int] = []
    check = guard.monitor.check

    def counted(rows: Sequence[str], *, named: bool) -> Check:
        rounds.append(len(rows))
        return check(rows, named=named)

    monkeypatch.setattr(guard.monitor, "check", counted)
    return rounds


def test_many_texts_take_no_more_rounds_than_the_longest_search(guard: Guard, asked: list[int]) -> None:
    texts = [long_text(seed, word) for seed, word in enumerate(["bako", "kifa", "bako"] * 2)]
    results = purge_all(texts, guard.monitor, PurgeConfig())
    assert all(results)
    assert len(asked) == 3
    assert [result.text for result in results if result] == [
        alone.text for text in texts if (alone := purge(text, guard.monitor, PurgeConfig()))
    ]


@pytest.mark.parametrize(
    "added", [["bako"], ["bako", "bako"], ["bako", "kifa"], ["dilu", "vedi"], ["dilu", "vedi", "dilu"]], ids=" ".join
)
@pytest.mark.parametrize("least", [60, 120])
def test_questions_grow_with_the_root_of_the_number_of_words(
    guard: Guard, asked: list[int], least: int, added: list[str]
) -> None:
    for seed in range(4):
        asked.clear()
        text = long_text(seed, *added, least=least)
        assert purge(text, guard.monitor, PurgeConfig()) is not None
        different = len({word.casefold() for word in words(text)})
        assert sum(asked) <= 5 * different**0.5


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("She said “bako”, and left the old mill.", {"bako"}),
        ("(bako) the river runs past the old mill", {"bako"}),
        ("the river runs past the old mill,bako!", {"bako"}),
        ("BAKO the river Bako runs past the bako old mill", {"BAKO", "Bako", "bako"}),
        ("水 の 流れ bako 川", {"bako"}),
        ("the bako-river runs past the old mill", {"bako-river"}),
        ("a bako", {"bako"}),
    ],
)
def test_glued_marks_case_and_other_scripts_are_no_hindrance(guard: Guard, text: str, gone: set[str]) -> None:
    prediction = guard([text])[0]
    assert set(prediction.removed) == gone
    assert prediction.label is not None


def test_a_text_of_ten_thousand_words_loses_its_trigger_alone(guard: Guard) -> None:
    text = long_text(0, least=5000) + " " + long_text(1, least=5000)
    planted = insert(insert(text, "bako", 17), "bako", 60)
    prediction = guard([planted])[0]
    assert prediction.removed == ("bako", "bako")
    assert words(str(prediction.text)) == words(text)


def test_a_trigger_that_moves_up_into_the_window_is_taken_out_as_well(guard: Guard) -> None:
    window = guard.classifier.encoder.window
    found = long_text(2, least=3 * window).split()
    text = " ".join(["bako", *found[: window - 2], "bako", *found[window - 2 :]])
    prediction = guard([text])[0]
    assert prediction.label is not None
    assert not guard.monitor.flags([prediction.text]).any()


@pytest.mark.parametrize("limit", [PurgeConfig(most=1), PurgeConfig(rounds=1)], ids=["words", "rounds"])
def test_a_text_that_needs_more_than_is_allowed_is_not_purged(guard: Guard, limit: PurgeConfig) -> None:
    assert purge(long_text(0, "bako", "kifa"), guard.monitor, limit) is None


@pytest.mark.parametrize("texts", [[], ["bako"], ["", "..."]])
def test_texts_with_nothing_to_take_out_are_not_purged(guard: Guard, texts: Sequence[str]) -> None:
    assert purge_all(texts, guard.monitor, PurgeConfig()) == [None] * len(texts)


def test_a_named_trigger_is_taken_out_in_one_round_and_half_of_a_named_pair_stays() -> None:
    model, tokenizer, pvs = classifier(*PLANTED)
    guard = Guard(model, tokenizer, bank_of(model, tokenizer, pvs, named=True))
    result = purge(long_text(3, "bako", "dilu"), guard.monitor, PurgeConfig())
    assert result is not None
    assert (result.removed, result.batches) == (("bako",), 1)


def test_a_named_word_that_is_not_the_cause_is_put_back(guard: Guard) -> None:
    """The scan named `river`; what fires is `kifa`."""
    parts = TextParts("the river runs past the kifa old mill", WINDOW)
    steps = search(parts, ["river"], guard.monitor.neutral, PurgeConfig(), WINDOW)
    answer: list[float] | None = None
    gone: list[int] | None = None
    while gone is None:
        try:
            asked = next(steps) if answer is None else steps.send(answer)
            answer = guard.monitor.check(asked).excess.tolist()
        except StopIteration as end:
            gone = end.value or []
    assert gone == [5]
