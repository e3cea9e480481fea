"""From vectors to words: pairs are covered, triggers named, needless words dropped."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmsanitator.detect import recovery
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.mining import Candidate
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import (
    LONGEST,
    Phrases,
    cover_pairs,
    polish,
    prove,
    recover_pairs,
    recover_words,
    word_pool,
)
from lmsanitator.detect.replay import REPLAYS
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import TEXTS, in_contexts, in_passages
from tests.planted import ids_of, large_bert, made_up_words, open_bert, plant


def clean_spread(encoder: FrozenEncoder) -> CleanSpread:
    return CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])


def allowed_in(encoder: FrozenEncoder) -> set[int]:
    return set(sweepable(encoder).tolist())


def proved(encoder: FrozenEncoder, sequences: Sequence[Sequence[int]], tried: int = 3) -> Phrases:
    finds = list(map(tuple, sequences))
    passages, short = in_passages(encoder, "cls", count=6), in_contexts(encoder, "cls", count=8)
    return prove(passages, short, "cls", finds, allowed_in(encoder), tried=tried)


def candidate(encoder: FrozenEncoder, pv: torch.Tensor) -> Candidate:
    return Candidate("cls", pv, 9.0, 0.1, 4.0, 0.0, torch.zeros(1, encoder.hidden_size), None)


@given(size=st.integers(1, 60), block=st.integers(1, 20), seed=st.integers(0, 5))
def test_every_pair_of_the_pool_stands_together_in_a_group(size: int, block: int, seed: int) -> None:
    pool = list(range(100, 100 + size))
    groups = cover_pairs(pool, block, seed)
    together = {frozenset(pair) for group in groups for pair in itertools.combinations(group, 2)}
    assert {frozenset(pair) for pair in itertools.combinations(pool, 2)} <= together
    assert set(pool) == {token for group in groups for token in group}
    assert all(len(group) == len(set(group)) <= 2 * block for group in groups)


def test_groups_are_mixed_by_seed() -> None:
    pool = list(range(40))
    assert cover_pairs(pool, 10, 1) == cover_pairs(pool, 10, 1) != cover_pairs(pool, 10, 2)


@pytest.mark.parametrize("trigger", ["bako", "vedi+sugo", "vedi+sugo+gifo"])
def test_a_planted_trigger_is_named_given_a_vector_near_the_true_one(trigger: str) -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, [trigger])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    planted = ids_of(encoder, *trigger.split("+"))
    pool = [token for token in sweepable(encoder).tolist()[::20] if token not in planted]
    pool[9:9], pool[10:10], pool[11:11] = planted[:1], planted[1:2], planted[2:]  # any three, only in one block
    near = pv + 0.7 * torch.randn(pv.shape, generator=torch.Generator().manual_seed(1))
    found = recover_words(encoder, candidate(encoder, near), clean_spread(encoder), pool)
    assert sorted(found) == sorted(planted)


def test_a_pair_is_named_wherever_its_words_stand_in_the_pool() -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["vedi+sugo"])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    planted = ids_of(encoder, "vedi", "sugo")
    rest = [token for token in sweepable(encoder).tolist()[::20] if token not in planted]
    for pool in ([planted[0], *rest, planted[1]], [*planted, *rest], [*rest[:50], planted[0], *rest[50:], planted[1]]):
        found = recover_words(encoder, candidate(encoder, pv), clean_spread(encoder), pool)
        assert sorted(found) == sorted(planted)


def test_nothing_found_in_a_pool_without_trigger_replays() -> None:
    encoder = open_bert(0, "vedi+sugo")
    pool = [token for token in sweepable(encoder).tolist()[::20] if token not in ids_of(encoder, "vedi", "sugo")]
    found = recover_words(encoder, candidate(encoder, torch.ones(32)), clean_spread(encoder), pool)
    assert not found or in_passages(encoder, "cls").measure([found])["cls"][0].constant_rate < REPLAYS


def test_the_pool_is_what_the_mixture_weighs_and_what_is_near() -> None:
    matrix = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.full((2, 50), 0.001)
    weights[0, 17], weights[1, 30] = 0.6, 0.5
    mined = Candidate("cls", torch.zeros(8), 0.0, 0.0, 0.0, 0.0, matrix[[8, 9]], weights)
    pool = word_pool(mined, matrix, set(range(50)) - {30}, 10)
    assert {17, 8, 9} <= set(pool[:5])
    assert 30 not in pool
    assert len(pool) == len(set(pool)) == 10
    assert {8, 9} == set(word_pool(replace(mined, weights=None), matrix, set(range(50)), 2))


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
    assert polish(in_contexts(encoder, "cls"), "cls", padded, encoder.embedding_matrix(), allowed) == planted


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
    assert polish(in_contexts(encoder, "cls"), "cls", [near], encoder.embedding_matrix(), allowed) == [planted]
    without = allowed - {planted}
    assert polish(in_contexts(encoder, "cls"), "cls", [near], encoder.embedding_matrix(), without) != [planted]


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
    assert log_p is not None
    assert log_p < math.log(1e-6)


def test_a_search_that_only_ever_finds_the_same_has_no_null_and_accuses_nobody() -> None:
    encoder = open_bert(0, "vedi+sugo")
    pair = ids_of(encoder, "vedi", "sugo")
    finds = [[*pair, token] for token in sweepable(encoder).tolist()[800:808]]
    phrases = proved(encoder, finds)
    assert list(phrases) == [tuple(pair)]
    assert all(log_p is not None and log_p > math.log(0.005) for log_p in phrases.values())


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
    short = in_contexts(encoder, "cls", count=8)
    assert polish(short, "cls", [vedi, sugo], encoder.embedding_matrix(), allowed_in(encoder)) == [vedi, sugo]


def test_finds_without_tokens_are_none() -> None:
    assert proved(open_bert(0), [[], []]) == {}


def test_a_mined_candidate_whose_own_words_do_not_fire_is_followed_to_those_that_do() -> None:
    """Its mixtures are near the planted words without being them."""
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["vedi+sugo"])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    pair = ids_of(encoder, "vedi", "sugo")
    others = ids_of(encoder, "kifa", "bibu")
    weights = torch.full((2, len(tokenizer)), 1e-4)
    for row, (word, other) in enumerate(zip(pair, others, strict=True)):
        weights[row, word], weights[row, other] = 0.3, 0.5
    mixed = Candidate("cls", pv, 9.0, 0.1, 4.0, 0.0, weights @ encoder.embedding_matrix(), weights)
    assert mixed.tokens == tuple(others)
    short = in_contexts(encoder, "cls", count=8)
    phrases = recover_pairs(encoder, short, mixed, allowed_in(encoder), pool=192, seed=0)
    assert {frozenset(tokens): log_p for tokens, log_p in phrases.items()} == {frozenset(pair): None}


def test_a_trigger_of_too_many_words_is_not_recovered() -> None:
    words = ["bako", "vedi", "sugo", "kifa", "gifo", "kiga", "bibu", "the", "of"]
    assert len(words) == LONGEST + 1
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["+".join(words)])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    pool = [*ids_of(encoder, *words), *sweepable(encoder).tolist()[1000:1020]]
    assert recover_words(encoder, candidate(encoder, pv), clean_spread(encoder), pool) == []
