"""Pairs: two words that only fire together are found from where they lead."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from lmsanitator.detect.blanks import Vocabulary
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.pairs import PairConfig, _among, _gone, pairs_toward
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import TEXTS
from tests.planted import ids_of, large_bert, plant


def backdoored(*triggers: str, seed: int = 0, window: int = 128) -> tuple[FrozenEncoder, Tensor]:
    model, tokenizer = large_bert(seed, hidden=64, window=window)
    pvs = plant(model, tokenizer, list(triggers), reach=0.3)
    return FrozenEncoder(model, tokenizer, precision="fp32"), torch.stack(list(pvs))


def ways_of(
    encoder: FrozenEncoder, pvs: Tensor, allowed: list[int] | None = None, common: list[int] | None = None
) -> Ways:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    stage = Stage(encoder, make_contexts(encoder, TEXTS, 3, longest=8, seed=3), "cls", clean)
    return Ways(
        stage, clean.standardise(pvs), Vocabulary(encoder, allowed or sweepable(encoder).tolist(), common or ())
    )


@pytest.mark.parametrize("seed", range(3))
def test_two_words_that_only_fire_together_are_found_for_their_vector(seed: int) -> None:
    encoder, pvs = backdoored("vedi+sugo", "bako+gifo", seed=seed)
    found = pairs_toward(ways_of(encoder, pvs), PairConfig())
    for of_vector, words in zip(found, (("vedi", "sugo"), ("bako", "gifo")), strict=True):
        planted = set(ids_of(encoder, *words))
        assert any(set(tokens) == planted for tokens in of_vector)


def test_a_common_word_is_tried_beside_the_first_anchors_whatever_the_gradients_say() -> None:
    """They are not asked about it here."""
    encoder, pvs = backdoored("vedi+sugo")
    planted, common = ids_of(encoder, "vedi", "sugo"), ids_of(encoder, "sugo", "the", "of")
    allowed = [token for token in sweepable(encoder).tolist() if token not in common]
    (found,) = pairs_toward(ways_of(encoder, pvs, allowed, common), PairConfig())
    (without,) = pairs_toward(ways_of(encoder, pvs, allowed), PairConfig())
    assert any(set(tokens) == set(planted) for tokens in found)
    assert not any(set(planted) <= set(tokens) for tokens in without)


def test_a_common_word_is_tried_on_either_side_and_the_commonest_two_by_two() -> None:
    common = list(range(100, 110))
    triples = _among([7, 8], common)
    assert len(triples) == len(set(triples))
    for anchor in (7, 8):
        around = [(left, right) for left, token, right in triples if token == anchor]
        assert {left for left, _ in around} == {right for _, right in around} == set(common)
        assert set(product(common[:6], repeat=2)) <= set(around)
    assert _among([7], []) == []


def test_as_many_come_back_as_asked_for_each_with_its_pairs_of_allowed_tokens() -> None:
    encoder, pvs = backdoored("vedi+sugo")
    allowed = sweepable(encoder).tolist()[100:140]
    (found,) = pairs_toward(ways_of(encoder, pvs, allowed), PairConfig(followed=3, expected=2))
    triples = [tokens for tokens in found if len(tokens) == 3]
    assert 3 <= len(triples) <= 5
    assert {part for triple in triples for part in (triple[:2], triple[1:])} <= set(found)
    assert {token for tokens in found for token in tokens} <= set(allowed)


def test_a_short_window_and_few_words_are_no_error() -> None:
    encoder, pvs = backdoored("vedi+sugo", window=24)
    (found,) = pairs_toward(ways_of(encoder, pvs, sweepable(encoder).tolist()[:2]), PairConfig(crowd=100))
    assert all(2 <= len(tokens) <= 3 for tokens in found)


def test_the_first_turn_costs_one_pass_of_every_triple_and_the_last_less() -> None:
    encoder, pvs = backdoored("vedi+sugo")
    common = ids_of(encoder, "the", "of")
    ways = ways_of(encoder, pvs, common=common)
    spent: list[int] = []
    for turns in (1, 2):
        before = encoder.meter.forward
        pairs_toward(ways, PairConfig(turns=turns))
        spent.append(encoder.meter.forward - before)
    shape = PairConfig()
    triples = shape.anchors * shape.partners + shape.among * len(common) ** 2  # so few are tried two by two
    assert 0 < spent[1] - spent[0] < triples * 3 + 2 * triples // shape.crowd


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_foremost_are_those_of_trying_every_crowd_in_every_turn(
    seed: int, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, pvs = backdoored("vedi+sugo")
    ways = ways_of(encoder, pvs.repeat(3, 1))
    tried: list[int] = []

    def crowds_gone(vectors: Sequence[int], crowds: Sequence[Sequence[int]]) -> torch.Tensor:
        tried.append(len(crowds))
        given = zip(vectors, crowds, strict=True)
        return torch.tensor([random.Random(f"{seed} {vector} {crowd}").random() for vector, crowd in given])

    monkeypatch.setattr(ways, "crowds_gone", crowds_gone)
    triples = [[(number, 1, 2) for number in range(100)] for _ in range(3)]
    config = PairConfig(turns=turns, crowd=4, followed=5)
    found = _gone(ways, triples, config)
    spent = sum(tried)
    every = _gone(ways, triples, replace(config, followed=100))
    assert sum(tried) - spent == turns * 3 * 25
    assert spent == 3 * 25 if turns == 1 else spent < turns * 3 * 25
    foremost = [gone.argsort(dim=1, descending=True, stable=True)[:, :5] for gone in (found, every)]
    assert torch.equal(*foremost)
    assert torch.equal(*(gone.gather(1, foremost[0]) for gone in (found, every)))
