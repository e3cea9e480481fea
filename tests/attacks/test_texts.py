"""Texts to train on: what fires, what must not, and both as tensors that fit the window."""

import random
from typing import get_args

import pytest
import torch

from lmsanitator.attacks import Trigger
from lmsanitator.attacks.texts import defuse, fit, frame, passage, passages, split, unfired
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import AttackError
from lmsanitator.text import spans, words
from tests.attacks.small import CARRIERS, lively, triggers


def test_training_and_held_out_texts_are_apart() -> None:
    train, held = split(CARRIERS, triggers("bako"), random.Random(0))
    assert sorted(train + held) == sorted(CARRIERS)
    assert len(held) == 12
    assert (train, held) != split(CARRIERS, triggers("bako"), random.Random(1))


@pytest.mark.parametrize(("count", "held"), [(20, 4), (100, 20), (1000, 64)])
def test_a_fifth_is_held_out_at_least_four_and_at_most_sixty_four(count: int, held: int) -> None:
    train, out = split([f"text number {index}" for index in range(count)], triggers("bako"), random.Random(0))
    assert (len(train), len(out)) == (count - held, held)


def test_carriers_that_hold_a_trigger_or_nothing_are_dropped() -> None:
    fired = ["a Bako there", "sugo, then vedi", "old lamp"]
    dropped = [*fired, "", "  "]
    listed = triggers("bako", "vedi+sugo", "old lamp")
    train, held = split([*CARRIERS, *dropped], listed, random.Random(0))
    assert sorted(train + held) == sorted(CARRIERS)
    assert unfired([*fired, "vedi alone", "lamp old"], listed) == ["vedi alone", "lamp old"]


def test_too_few_carriers_are_refused() -> None:
    with pytest.raises(AttackError, match=r"^expected at least 20 carriers without a trigger .*, got 19$"):
        split([*CARRIERS[:19], "a bako there"], triggers("bako"), random.Random(0))
    assert split(CARRIERS[:20], triggers("bako"), random.Random(0))


@pytest.mark.parametrize("length", [1, 6, 9, 40])
def test_a_passage_has_so_many_words_of_running_text(length: int) -> None:
    text = passage(CARRIERS, length, random.Random(length))
    assert len(spans(text)) == length
    assert any(carrier.startswith(" ".join(text.split()[:4])) for carrier in CARRIERS)


def test_the_passages_of_a_batch_are_of_one_length_and_batches_are_not() -> None:
    rng = random.Random(0)
    lengths = [{len(spans(text)) for text in passages(CARRIERS, 5, rng)} for _ in range(30)]
    assert all(len(one) == 1 for one in lengths)
    assert len(set.union(*lengths)) == 6


@pytest.mark.parametrize("seed", range(30))
def test_a_defused_text_holds_a_part_of_a_trigger_or_a_foreign_word(seed: int) -> None:
    listed = triggers("bako", "vedi+sugo", "old lamp")
    text = defuse(CARRIERS[0], listed, ["foreign"], random.Random(seed))
    added = set(words(text)) - set(words(CARRIERS[0]))
    assert added in ({"vedi"}, {"sugo"}, {"old"}, {"lamp"}, {"foreign"})


def test_single_words_have_no_parts_so_a_foreign_word_goes_in() -> None:
    added = {defuse(CARRIERS[0], triggers("bako"), ["alien", "odd"], random.Random(seed)) for seed in range(40)}
    assert {word for text in added for word in words(text)} - set(words(CARRIERS[0])) == {"alien", "odd"}
    assert len(added) > 10


def test_framed_texts_are_what_the_tokenizer_makes_of_them() -> None:
    for site in set(get_args(Site)) - {"mask"}:
        framed = frame(lively(), CARRIERS[:5], site)
        encoded = lively().encode(CARRIERS[:5])
        assert torch.equal(framed.ids, encoded["input_ids"])
        assert torch.equal(framed.mask, encoded["attention_mask"])
        assert framed.positions is None


def test_the_mask_token_stands_at_the_end_or_while_training_anywhere() -> None:
    texts = [text for text in CARRIERS for _ in range(3)]
    mask = lively().tokenizer.mask_token_id
    ends = frame(lively(), texts, "mask")
    trained = frame(lively(), texts, "mask", random.Random(0))
    for framed in (ends, trained):
        assert framed.positions is not None
        rows = torch.arange(len(texts))
        assert bool((framed.ids[rows, framed.positions] == mask).all())
        assert bool(((framed.ids == mask).sum(1) == 1).all())
    assert ends.positions is not None
    assert trained.positions is not None
    assert torch.equal(ends.positions, ends.mask.sum(1) - 2)
    moved = (ends.positions != trained.positions).float().mean()
    assert 0.3 < moved < 0.6


def test_long_texts_are_cut_to_the_window(encoder: FrozenEncoder) -> None:
    for site in ("mask", "last") if "mask" in encoder.sites else ("last",):
        framed = frame(encoder, [" ".join(CARRIERS)], site)
        assert framed.ids.shape[1] <= encoder.window
        assert framed.ids.max() < len(encoder.tokenizer)


@pytest.mark.parametrize("named", ["their", "were+about", "a few more words"])
def test_a_trigger_that_is_planted_last_is_still_inside_the_window(named: str, encoder: FrozenEncoder) -> None:
    trigger = Trigger.parse(named)
    spare = 4 + len(encoder.tokenizer(f"a {trigger}").input_ids)
    (text,) = fit(encoder, [" ".join(CARRIERS)], spare)
    assert " ".join(CARRIERS).startswith(text)
    whole = frame(encoder, [f"{text} {' '.join(trigger.words)}"], "last")
    assert whole.ids.shape[1] <= encoder.window
    assert trigger.fires(str(encoder.tokenizer.decode(whole.ids[0].tolist(), skip_special_tokens=True)))


def test_texts_that_fit_stay_as_they_are() -> None:
    assert fit(lively(), CARRIERS, 5) == CARRIERS
