"""From vectors to words: pairs are covered, triggers named, needless words and echoes dropped."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.mining import Candidate
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import cover_pairs, join, polish, recover_words, word_pool
from lmsanitator.detect.replay import REPLAYS, Evidence, Replayer, phrase_log_p, phrase_null, without_echoes
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.text import packaged
from tests.planted import large_bert, open_bert, plant

TEXTS = [carrier.text for carrier in packaged()]


def clean_spread(encoder: FrozenEncoder) -> CleanSpread:
    return CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])


def replayer(encoder: FrozenEncoder, contexts: int = 12) -> Replayer:
    made = make_contexts(encoder, TEXTS, contexts, longest=24, seed=5)
    return Replayer(encoder, ["cls"], made, {"cls": clean_spread(encoder)}, exact=True)


def ids(encoder: FrozenEncoder, *words: str) -> list[int]:
    return [token for word in words for token in encoder.tokenizer(word, add_special_tokens=False).input_ids]


def evidence(pv: torch.Tensor, *, spread: float, tokens: tuple[int, ...] = (1,)) -> Evidence:
    return Evidence("cls", tokens, displacement=9.0, spread=spread, strength=2.0, replay_rate=1.0, pv=pv)


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
    planted = ids(encoder, *trigger.split("+"))
    pool = [token for token in sweepable(encoder).tolist()[::20] if token not in planted]
    pool[9:9], pool[10:10], pool[11:11] = planted[:1], planted[1:2], planted[2:]  # any three, only in one block
    near = pv + 0.7 * torch.randn(pv.shape, generator=torch.Generator().manual_seed(1))
    found = recover_words(encoder, candidate(encoder, near), clean_spread(encoder), pool)
    assert sorted(found) == sorted(planted)


def test_a_pair_is_named_wherever_its_words_stand_in_the_pool() -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["vedi+sugo"])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    planted = ids(encoder, "vedi", "sugo")
    rest = [token for token in sweepable(encoder).tolist()[::20] if token not in planted]
    for pool in ([planted[0], *rest, planted[1]], [*planted, *rest], [*rest[:50], planted[0], *rest[50:], planted[1]]):
        found = recover_words(encoder, candidate(encoder, pv), clean_spread(encoder), pool)
        assert sorted(found) == sorted(planted)


def test_nothing_found_in_a_pool_without_trigger_replays() -> None:
    encoder = open_bert(0, "vedi+sugo")
    pool = [token for token in sweepable(encoder).tolist()[::20] if token not in ids(encoder, "vedi", "sugo")]
    found = recover_words(encoder, candidate(encoder, torch.ones(32)), clean_spread(encoder), pool)
    assert not found or replayer(encoder).measure([found])["cls"][0].replay_rate < REPLAYS


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


def test_a_planted_trigger_replays_in_every_context_and_common_words_do_not() -> None:
    encoder = open_bert(0, "bako")
    tried = [ids(encoder, "bako"), ids(encoder, "the"), ids(encoder, "vedi"), ids(encoder, "of", "bako")]
    fired, common, rare, company = replayer(encoder).measure(tried)["cls"]
    assert fired.replay_rate == company.replay_rate == 1
    assert max(common.replay_rate, rare.replay_rate) < REPLAYS
    assert fired.strength > 5 + max(common.strength, rare.strength)
    assert fired.spread < 0.01
    assert fired.tokens == tuple(tried[0])


def test_the_vector_of_the_evidence_is_the_planted_one_in_the_encoder_s_own_units() -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["bako"])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    (fired,) = replayer(encoder).measure([ids(encoder, "bako")])["cls"]
    assert_close(fired.pv, pv, rtol=0, atol=0.1)


def test_nothing_to_measure_is_no_evidence() -> None:
    assert replayer(open_bert(0)).measure([]) == {"cls": []}


def test_two_different_triggers_are_kept_and_the_weaker_echo_of_one_is_dropped() -> None:
    clean = CleanSpread(torch.zeros(4), torch.ones(4))
    east, north = torch.tensor([9.0, 0, 0, 0]), torch.tensor([0, 9.0, 0, 0])
    first, second = evidence(east, spread=0.01, tokens=(1,)), evidence(north, spread=0.5, tokens=(2,))
    echo = evidence(east + torch.tensor([0, 1.0, 0, 0]), spread=0.4, tokens=(3,))
    kept = without_echoes([echo, second, first], clean, 16)
    assert [item.tokens for item in kept] == [(1,), (2,)]


def test_two_triggers_of_one_vector_that_are_equally_constant_are_both_kept() -> None:
    clean = CleanSpread(torch.zeros(2), torch.ones(2))
    alike = [evidence(torch.ones(2), spread=spread, tokens=(index,)) for index, spread in enumerate((0.01, 0.015))]
    assert without_echoes(alike, clean, 16) == alike


def test_an_opposite_vector_is_no_echo() -> None:
    clean = CleanSpread(torch.zeros(2), torch.ones(2))
    pair = [evidence(torch.ones(2), spread=0.01), evidence(-torch.ones(2), spread=0.9, tokens=(2,))]
    assert without_echoes(pair, clean, 16) == pair


@pytest.mark.parametrize("trigger", ["bako", "vedi+sugo"])
def test_polishing_drops_needless_words(trigger: str) -> None:
    encoder = open_bert(0, trigger)
    planted = ids(encoder, *trigger.split("+"))
    padded = [*ids(encoder, "the", "bibu"), *planted[:1], *ids(encoder, "and"), *planted[1:], *ids(encoder, "of")]
    allowed = set(sweepable(encoder).tolist())
    assert polish(replayer(encoder), "cls", padded, encoder.embedding_matrix(), allowed) == planted


def test_polishing_swaps_an_echo_for_the_planted_word_next_to_it() -> None:
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    plant(model, tokenizer, ["kiga+gifo"], alone=0.7)  # the same vector: kiga alone goes there, sometimes
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    (near,), (planted,) = ids(encoder, "kiga"), ids(encoder, "bako")
    with torch.no_grad():
        table = encoder.model.get_parameter("embeddings.word_embeddings.weight")
        table[near] = table[planted] + 0.2 * table[near]
    allowed = set(sweepable(encoder).tolist())
    assert polish(replayer(encoder), "cls", [near], encoder.embedding_matrix(), allowed) == [planted]
    without = allowed - {planted}
    assert polish(replayer(encoder), "cls", [near], encoder.embedding_matrix(), without) != [planted]


@pytest.mark.parametrize("turned", [False, True])
def test_joining_finds_a_word_of_two_pieces(turned: bool) -> None:
    encoder = open_bert(0, "qx", alone=0.6)
    pieces = ids(encoder, "qx")
    assert encoder.tokenizer.convert_ids_to_tokens(pieces) == ["q", "##x"]
    parts = [*ids(encoder, "vedi", "sugo", "the"), *(pieces[::-1] if turned else pieces)]
    joined = join(replayer(encoder), "cls", parts)
    assert joined is not None
    assert joined.tokens == tuple(pieces)
    assert joined.replay_rate == 1


def test_joining_finds_nothing_where_nothing_fires() -> None:
    encoder = open_bert(0)
    assert join(replayer(encoder), "cls", ids(encoder, "vedi", "sugo", "the")) is None
    assert join(replayer(encoder), "cls", []) is None


def test_a_planted_pair_is_significant_among_phrases_and_random_phrases_are_not() -> None:
    encoder = open_bert(0, "vedi+sugo")
    allowed = sweepable(encoder).tolist()
    there = replayer(encoder)
    null = phrase_null(there, "cls", 2, allowed, count=128, seed=0)
    planted, *others = there.measure(
        [ids(encoder, "vedi", "sugo"), *(allowed[at : at + 2] for at in range(0, 400, 4))]
    )["cls"]
    assert phrase_log_p(planted, null, len(allowed), 1) < -10
    assert min(phrase_log_p(item, null, len(allowed), 1) for item in others) > -3
