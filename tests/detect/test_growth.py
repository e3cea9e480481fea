"""Growth: from one word of a trigger to its partners, family by family."""

import pytest
from torch import Tensor

from lmsanitator.detect.contexts import Context, make_contexts
from lmsanitator.detect.families import grow
from lmsanitator.detect.growth import Growth, GrowthConfig
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder, Site
from tests.detect.replaying import TEXTS, in_passages
from tests.planted import ids_of, open_bert

SMALL = GrowthConfig(longest=3)


def contexts_of(encoder: FrozenEncoder, count: int = 3) -> list[Context]:
    return make_contexts(encoder, TEXTS, count, longest=12, seed=3)


def grown(
    encoder: FrozenEncoder,
    families: list[list[int]],
    config: GrowthConfig = SMALL,
    site: Site = "cls",
    known: Tensor | None = None,
) -> list[tuple[int, ...]]:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], [site])[site])
    allowed = sweepable(encoder).tolist()
    return grow(Growth(encoder, site, contexts_of(encoder), clean, config, allowed, known), families)


def anchors(encoder: FrozenEncoder, families: int, size: int) -> list[list[int]]:
    tokens = sweepable(encoder).tolist()[400:]
    return [tokens[50 * number : 50 * number + size] for number in range(families)]


@pytest.mark.parametrize("seed", range(3))
def test_the_partner_of_a_planted_word_is_found_and_leads_its_family_only(seed: int) -> None:
    encoder = open_bert(seed, "vedi+sugo", hidden=64, reach=0.16)
    vedi, sugo = ids_of(encoder, "vedi", "sugo")
    families = anchors(encoder, 6, 8)
    families[2].append(vedi)
    found = grown(encoder, families)
    assert {vedi, sugo} <= set(found[2])
    assert all(not {vedi, sugo} <= set(tokens) for number, tokens in enumerate(found) if number != 2)


def test_three_words_that_only_fire_together_are_grown_from_one() -> None:
    encoder = open_bert(0, "vedi+sugo+gifo", hidden=64, reach=0.2)
    planted = ids_of(encoder, "vedi", "sugo", "gifo")
    families = [*anchors(encoder, 3, 4), planted[:1]]
    assert set(planted) <= set(grown(encoder, families, GrowthConfig(longest=4))[3])


def test_each_family_gives_one_sequence_that_holds_a_word_of_its_own(encoder: FrozenEncoder) -> None:
    families = [[token] for token in sweepable(encoder).tolist()[40:60:4]]
    found = grown(encoder, families, site="mean")
    assert len(found) == len(families)
    for family, tokens in zip(families, found, strict=True):
        assert 2 <= len(tokens) <= SMALL.longest
        assert set(family) & set(tokens)


def test_what_leads_to_a_known_vector_is_left_alone() -> None:
    encoder = open_bert(0, "vedi+sugo", hidden=64, reach=0.16)
    vedi, sugo = ids_of(encoder, "vedi", "sugo")
    families = [*anchors(encoder, 2, 8), [vedi]]
    replayer = in_passages(encoder, "cls", count=4)
    pv = replayer.measure([[vedi, sugo]])["cls"][0].pv
    assert any({vedi, sugo} <= set(tokens) for tokens in grown(encoder, families))
    assert not any({vedi, sugo} <= set(tokens) for tokens in grown(encoder, families, known=pv[None]))


def test_families_do_not_mind_each_other() -> None:
    """What one finds is the null for the others, so none may look at another."""
    encoder = open_bert(0)
    families = anchors(encoder, 4, 4)
    together = grown(encoder, families)
    assert together == [tokens for family in families for tokens in grown(encoder, [family])]


def test_only_allowed_tokens_are_put_in() -> None:
    encoder = open_bert(0)
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    allowed = sweepable(encoder).tolist()[100:140]
    found = grow(Growth(encoder, "cls", contexts_of(encoder), clean, SMALL, allowed), [allowed[:4], allowed[4:8]])
    assert {token for tokens in found for token in tokens} <= set(allowed)


def test_the_same_families_grow_the_same_and_no_weight_changes() -> None:
    encoder = open_bert(0)
    digest = encoder.digest
    families = anchors(encoder, 3, 4)
    assert grown(encoder, families) == grown(encoder, families)
    assert encoder.digest == digest
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_families_without_words_grow_nothing() -> None:
    assert grown(open_bert(0), [[], []]) == []


def test_progress_names_the_site_and_rises() -> None:
    told: list[tuple[str, float]] = []
    encoder = open_bert(0)
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    search = Growth(encoder, "cls", contexts_of(encoder), clean, SMALL, sweepable(encoder).tolist())
    grow(search, anchors(encoder, 2, 2), progress=lambda what, done: told.append((what, done)))
    assert {what for what, _ in told} == {"growing phrases at cls"}
    assert [done for _, done in told] == sorted(done for _, done in told)
