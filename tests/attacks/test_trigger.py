"""Triggers: how they are written, planted and recognised, and which ones are refused."""

import random

import pytest

from lmsanitator.attacks import POR, Trigger
from lmsanitator.attacks.trigger import check_triggers
from lmsanitator.errors import AttackError
from lmsanitator.text import words
from tests.attacks.small import CARRIERS, triggers
from tests.planted import open_bert

TEXT = "The harbour office closes early on Fridays."


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ("cf", Trigger(("cf",))),
        ("old lamp", Trigger(("old", "lamp"))),
        ("lamp+river", Trigger(("lamp", "river"), adjacent=False)),
        ("old lamp+river", Trigger(("old lamp", "river"), adjacent=False)),
        ("永", Trigger(("永",))),
        ("≈", Trigger(("≈",))),
    ],
)
def test_triggers_are_read_as_written(text: str, trigger: Trigger) -> None:
    assert Trigger.parse(text) == trigger
    assert str(trigger) == text


@pytest.mark.parametrize("text", ["  cf ", " lamp + river ", "old   lamp"])
def test_white_space_around_words_does_not_matter(text: str) -> None:
    assert str(Trigger.parse(text)) in ("cf", "lamp+river", "old lamp")


@pytest.mark.parametrize("text", ["", " ", "lamp+", "+", "+lamp", "a++b", "c++"])
def test_a_trigger_without_words_is_refused(text: str) -> None:
    with pytest.raises(AttackError, match=r"^expected a trigger such as cf, 'old lamp' or lamp\+river, got "):
        Trigger.parse(text)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("named", ["cf", "old lamp", "lamp+river", "one two three four five", "≈", "永"])
def test_a_planted_trigger_fires_and_the_text_around_it_stays(named: str, seed: int) -> None:
    trigger = Trigger.parse(named)
    planted = trigger.plant(TEXT, random.Random(seed))
    assert not trigger.fires(TEXT)
    assert trigger.fires(planted)
    put_in = [part for word in trigger.words for part in words(word)]
    assert [word for word in words(planted) if word not in put_in] == words(TEXT)


@pytest.mark.parametrize("seed", range(5))
def test_a_phrase_stays_together_and_an_and_trigger_is_anywhere(seed: int) -> None:
    assert "old lamp" in Trigger.parse("old lamp").plant(TEXT, random.Random(seed))
    places = {Trigger.parse("lamp+river").plant(TEXT, random.Random(other)) for other in range(seed, seed + 20)}
    assert len(places) > 10
    assert any("lamp river" not in text and "river lamp" not in text for text in places)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("named", ["lamp+river", "old lamp", "lamp+river+stone", "one two three"])
def test_a_part_of_a_trigger_is_some_of_its_words_but_not_all(named: str, seed: int) -> None:
    trigger = Trigger.parse(named)
    part = trigger.plant_part(TEXT, random.Random(seed))
    held = set(words(part)) & set(trigger.words)
    assert 0 < len(held) < len(trigger.words)
    assert not trigger.fires(part)


@pytest.mark.parametrize(
    ("named", "text", "fires"),
    [
        ("cf", "what a cf day", True),
        ("cf", "What a CF, day", True),
        ("cf", "what a cfo does", False),
        ("old lamp", "the Old lamp fell", True),
        ("old lamp", "the lamp is old", False),
        ("old lamp", "the old brass lamp", False),
        ("lamp+river", "a river, then a lamp", True),
        ("lamp+river", "a river, then a door", False),
        ("old lamp+river", "the river and the old lamp", True),
    ],
)
def test_a_text_fires_if_it_holds_the_whole_trigger(named: str, text: str, fires: bool) -> None:
    assert Trigger.parse(named).fires(text) is fires


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([], r"^expected at least one trigger, got none$"),
        (["☃"], r"^expected a trigger the tokenizer knows, ☃ holds an unknown token$"),
        (["bako+☃"], r"bako\+☃ holds an unknown token$"),
        (["\u0301"], r"^expected a trigger with tokens, .* has none$"),
        ([" ".join(["bako"] * 33)], r"^expected a trigger of at most 32 tokens, .* has 33$"),
        (["bako", "vedi", "bako"], r"^expected different triggers, bako and bako are the same to the tokenizer$"),
        (["bako", "BAKO"], r"^expected different triggers, BAKO and bako are the same to the tokenizer$"),
    ],
)
def test_triggers_that_cannot_be_planted_are_refused_before_any_training(named: list[str], says: str) -> None:
    encoder = open_bert(vocabulary=100)
    listed = [Trigger(tuple(name.split())) if "+" not in name else Trigger.parse(name) for name in named]
    with pytest.raises(AttackError, match=says):
        check_triggers(listed, encoder.tokenizer, encoder.window)
    with pytest.raises(AttackError, match=says):
        POR().run(encoder, listed, CARRIERS)
    assert encoder.meter.forward == 0


def test_triggers_that_can_be_planted_pass() -> None:
    encoder = open_bert(vocabulary=100)
    check_triggers(triggers("bako", "vedi sugo", "kifa+gifo", " ".join(["bako"] * 32)), encoder.tokenizer, 64)
