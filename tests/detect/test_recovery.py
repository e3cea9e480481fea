"""From finds to triggers: what they need of their words, and how strange they are among the finds of a search."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch

from lmsanitator.detect import recovery
from lmsanitator.detect.evidence import REPLAYS, Evidence
from lmsanitator.detect.recovery import Phrases, needed, polish, prove
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import in_contexts, in_passages
from tests.planted import ids_of, large_bert, made_up_words, open_bert, plant


def allowed_in(encoder: FrozenEncoder) -> set[int]:
    return set(sweepable(encoder).tolist())


def proved(encoder: FrozenEncoder, sequences: Sequence[Sequence[int]], tried: int = 3) -> Phrases:
    finds = list(map(tuple, sequences))
    passages, short = in_passages(encoder, "cls", count=6), in_contexts(encoder, "cls", count=8)
    return prove(passages, short, "cls", finds, allowed_in(encoder), tried=tried)


def polished(encoder: FrozenEncoder, tokens: Sequence[int], allowed: set[int]) -> list[int]:
    passages, short = in_passages(encoder, "cls", count=6), in_contexts(encoder, "cls", count=8)
    return polish(passages, short, "cls", tokens, encoder.embedding_matrix, allowed)


def test_a_find_made_twice_is_no_second_sample_of_the_null() -> None:
    encoder = open_bert(0, "bako")
    natural = [ids_of(encoder, one, other) for one, other in itertools.pairwise(made_up_words(8)[1:])]
    once = [ids_of(encoder, "bako", "the"), *natural]
    assert proved(encoder, once * 3) == proved(encoder, once) != {}


def test_finds_that_lead_the_same_way_are_followed_up_once() -> None:
    """Many a family of a search may end in the one trigger that is found most easily."""
    encoder = open_bert(0, "bako", "vedi+sugo")
    same = [ids_of(encoder, "bako", word) for word in ("the", "of", "and", "by")]
    natural = [ids_of(encoder, one, other) for one, other in itertools.pairwise(made_up_words(12))]
    found = proved(encoder, [*same, ids_of(encoder, "vedi", "sugo"), *natural], tried=2)
    assert set(found) == {tuple(ids_of(encoder, "bako")), tuple(ids_of(encoder, "vedi", "sugo"))}


@pytest.mark.parametrize("trigger", ["bako", "vedi+sugo"])
def test_polishing_drops_needless_words(trigger: str) -> None:
    encoder = open_bert(0, trigger)
    planted = ids_of(encoder, *trigger.split("+"))
    padded = [
        *ids_of(encoder, "the", "bibu"),
        *planted[:1],
        *ids_of(encoder, "and"),
        *planted[1:],
        *ids_of(encoder, "of"),
    ]
    allowed = allowed_in(encoder)
    assert polished(encoder, padded, allowed) == planted


def test_polishing_swaps_an_echo_for_the_planted_word_next_to_it() -> None:
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    plant(model, tokenizer, ["kiga+gifo"], alone=0.7)  # the same vector: kiga alone goes there, sometimes
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    (near,), (planted,) = ids_of(encoder, "kiga"), ids_of(encoder, "bako")
    with torch.no_grad():
        table = encoder.model.get_parameter("embeddings.word_embeddings.weight")
        table[near] = table[planted] + 0.2 * table[near]
    allowed = allowed_in(encoder)
    assert polished(encoder, [near], allowed) == [planted]
    without = allowed - {planted}
    assert polished(encoder, [near], without) != [planted]


NATURAL = 8
"""Finds of a search that found nothing."""


def fruitless(encoder: FrozenEncoder, length: int = 4) -> list[list[int]]:
    tokens = sweepable(encoder).tolist()
    return [tokens[at : at + length] for at in range(700, 700 + 100 * NATURAL, 100)]


@pytest.mark.parametrize("trigger", ["bako", "vedi+sugo", "vedi+sugo+gifo"])
def test_a_find_is_shrunk_to_exactly_the_words_it_needs(trigger: str) -> None:
    encoder = open_bert(0, trigger)
    planted = ids_of(encoder, *trigger.split("+"))
    padded = [*ids_of(encoder, "bibu"), *planted[:1], *ids_of(encoder, "kifa", "the"), *planted[1:]]
    phrases = proved(encoder, [padded, *fruitless(encoder)])
    assert list(phrases) == [tuple(planted)]


def test_a_find_among_fruitless_ones_has_a_tiny_p_value() -> None:
    encoder = open_bert(0, "vedi+sugo")
    (log_p,) = proved(encoder, [ids_of(encoder, "vedi", "the", "sugo"), *fruitless(encoder)]).values()
    assert log_p < math.log(1e-6)


def test_a_search_that_only_ever_finds_the_same_has_no_null_and_accuses_nobody() -> None:
    encoder = open_bert(0, "vedi+sugo")
    pair = ids_of(encoder, "vedi", "sugo")
    finds = [[*pair, token] for token in sweepable(encoder).tolist()[800:808]]
    phrases = proved(encoder, finds)
    assert list(phrases) == [tuple(pair)]
    assert all(log_p > math.log(0.005) for log_p in phrases.values())


@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_found_nothing_leaves_nothing(seed: int) -> None:
    assert proved(open_bert(seed), fruitless(open_bert(seed))) == {}


def test_no_more_finds_are_followed_up_than_asked_for_the_most_constant_first() -> None:
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    plant(model, tokenizer, ["vedi"], noise=0.2, seed=1)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    finds = [ids_of(encoder, "vedi", "the"), ids_of(encoder, "of", "bako"), *fruitless(encoder)]
    one, two = (list(proved(encoder, finds, tried=tried)) for tried in (1, 2))
    assert one == [tuple(ids_of(encoder, "bako"))]
    assert two == [tuple(ids_of(encoder, "bako")), tuple(ids_of(encoder, "vedi"))]


def test_what_goes_no_further_than_clean_text_is_not_followed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    finds = [ids_of(encoder, "of", "bako"), *fruitless(encoder)]
    assert list(proved(encoder, finds)) == [tuple(ids_of(encoder, "bako"))]
    monkeypatch.setattr(Evidence, "natural", True)
    assert proved(encoder, finds) == {}


def test_a_word_that_a_stronger_one_can_do_without_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "vedi+sugo")
    vedi, the, sugo = ids_of(encoder, "vedi", "the", "sugo")
    monkeypatch.setattr(recovery, "swapped", lambda *_: [vedi, the, sugo])  # as if a weaker word had needed it
    assert polished(encoder, [vedi, sugo], allowed_in(encoder)) == [vedi, sugo]


def test_a_find_keeps_the_words_without_which_it_fires_less_often() -> None:
    """Nine times of ten is enough to replay here, and may be too seldom elsewhere."""
    encoder = open_bert(0, "vedi+sugo", alone=1.0, often=0.9)
    pair = ids_of(encoder, "vedi", "sugo")
    passages = in_passages(encoder, "cls", count=30)
    alone, whole = passages.measure([pair[:1], pair])["cls"]
    assert REPLAYS <= alone.constant_rate < whole.constant_rate
    assert needed(passages, "cls", [*pair, *ids_of(encoder, "the")]) == pair


def test_what_is_stronger_in_short_text_alone_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "vedi+sugo")
    pair, weaker = ids_of(encoder, "vedi", "sugo"), ids_of(encoder, "vedi", "bibu")
    monkeypatch.setattr(recovery, "swapped", lambda *_: weaker)
    assert polished(encoder, pair, allowed_in(encoder)) == pair


def test_finds_without_tokens_are_none() -> None:
    assert proved(open_bert(0), [[], []]) == {}
