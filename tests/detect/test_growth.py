"""Growth: what stands beside a piece of a trigger is proposed, and longer words are measured."""

import pytest

from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.growth import Growth
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import TEXTS
from tests.planted import ids_of, open_bert


def growth_of(encoder: FrozenEncoder, allowed: list[int] | None = None) -> Growth:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    contexts = make_contexts(encoder, TEXTS, 3, longest=12, seed=3)
    return Growth(encoder, "cls", contexts, clean, allowed or sweepable(encoder).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_the_partner_of_a_planted_word_is_proposed_among_the_first_on_both_sides(seed: int) -> None:
    encoder = open_bert(seed, "vedi+sugo", hidden=64, reach=0.16)
    vedi, sugo = ids_of(encoder, "vedi", "sugo")
    left, right = growth_of(encoder).ranked((vedi,))
    assert max(left.index(sugo), right.index(sugo)) < 10


def test_every_allowed_token_is_ranked_once() -> None:
    encoder = open_bert(0)
    allowed = sweepable(encoder).tolist()[100:140]
    left, right = growth_of(encoder, allowed).ranked((7, 8))
    assert sorted(left) == sorted(right) == allowed


def test_a_trigger_is_stronger_than_its_parts_and_nothing_has_no_strength() -> None:
    encoder = open_bert(0, "vedi+sugo", hidden=64)
    vedi, sugo = ids_of(encoder, "vedi", "sugo")
    growth = growth_of(encoder)
    strengths = growth.strengths([(vedi,), (vedi, sugo), (sugo,)])
    assert max(strengths, key=strengths.__getitem__) == (vedi, sugo)
    assert growth.strengths([]) == {}


def test_no_weight_gets_a_gradient() -> None:
    encoder = open_bert(0)
    digest = encoder.digest
    growth_of(encoder).ranked((7,))
    assert encoder.digest == digest
    assert all(weight.grad is None for weight in encoder.model.parameters())
