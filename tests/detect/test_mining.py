"""Mining: soft triggers stay where they may be, grow stronger, keep away from what is known, and change no weight."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.config import PLANS
from lmsanitator.detect.contexts import Context, make_contexts
from lmsanitator.detect.mining import Candidate, MiningConfig, Space, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged
from lmsanitator.vectors import sign_match
from tests.detect.replaying import in_contexts
from tests.planted import ids_of, large_bert, open_bert, plant

TEXTS = [carrier.text for carrier in packaged()]
QUICK = MiningConfig(candidates=4, others=4, lengths=(3,), contexts=4, steps=6)


def clean_spreads(encoder: FrozenEncoder, *sites: Site) -> dict[Site, CleanSpread]:
    outputs = encoder.outputs_of_texts(TEXTS[:100], sites)
    return {site: CleanSpread.of(outputs[site]) for site in sites}


def six_contexts(encoder: FrozenEncoder) -> list[Context]:
    return make_contexts(encoder, TEXTS, 6, longest=6, seed=3)


def run(
    encoder: FrozenEncoder,
    config: MiningConfig,
    *,
    known: torch.Tensor | None = None,
    seed: int = 0,
    site: Site = "cls",
) -> list[Candidate]:
    """Mine at one site."""
    away = {} if known is None else {site: known}
    return mine(encoder, six_contexts(encoder), clean_spreads(encoder, site), config, known=away, seed=seed)[site]


def cosines(candidates: Sequence[Candidate], pv: torch.Tensor, clean: CleanSpread) -> torch.Tensor:
    """How much each candidate goes the way of a PV."""
    ways = clean.standardise(torch.stack([candidate.pv for candidate in candidates]))
    return torch.cosine_similarity(ways, clean.standardise(pv)[None])


def test_candidates_of_the_hull_are_mixtures_of_vocabulary_rows(encoder: FrozenEncoder) -> None:
    matrix = encoder.embedding_matrix()
    for candidate in run(encoder, QUICK, site="mean"):
        assert candidate.weights is not None
        assert candidate.weights.shape == (3, len(encoder.tokenizer))
        assert bool((candidate.weights >= 0).all())
        assert_close(candidate.weights.sum(1), torch.ones(3))
        assert_close(candidate.embeddings, candidate.weights @ matrix)


def test_free_candidates_stay_within_the_range_of_the_vocabulary() -> None:
    encoder = open_bert(0)
    matrix = encoder.embedding_matrix()
    wild = replace(QUICK, space="free", learning_rate=50.0)
    for candidate in run(encoder, wild):
        assert candidate.weights is None
        assert bool((candidate.embeddings >= matrix.amin(0)).all())
        assert bool((candidate.embeddings <= matrix.amax(0)).all())
    edges = torch.stack([candidate.embeddings for candidate in run(encoder, wild)])
    assert bool(((edges == matrix.amin(0)) | (edges == matrix.amax(0))).any())  # some would have left it


@pytest.mark.parametrize("space", ["hull", "free"])
def test_the_more_steps_the_stronger_the_candidates(space: Space) -> None:
    encoder = open_bert(0)
    strengths = [
        sum(candidate.strength for candidate in run(encoder, replace(QUICK, space=space, steps=steps)))
        for steps in (1, 8, 40)
    ]
    assert strengths[0] < strengths[1] < strengths[2]


def test_candidates_come_strongest_first_as_many_as_asked_for() -> None:
    candidates = run(open_bert(0), QUICK)
    assert len(candidates) == 4
    strengths = [candidate.strength for candidate in candidates]
    assert strengths == sorted(strengths, reverse=True)


def test_what_a_candidate_says_of_itself_is_what_its_embeddings_do() -> None:
    encoder = open_bert(0)
    clean, contexts = clean_spreads(encoder, "cls"), six_contexts(encoder)
    candidate = mine(encoder, contexts, clean, QUICK)["cls"][0]
    before, after = encoder.frame
    outputs = []
    for context in contexts[:4]:
        left, right = (
            encoder.embed(torch.tensor([ids]))[0] for ids in ([*before, *context.before], [*context.after, *after])
        )
        row = torch.cat([left, candidate.embeddings, right])[None]
        outputs.append(encoder.outputs(row, torch.ones(row.shape[:2], dtype=torch.long), ["cls"])["cls"][0])
    triggered = torch.stack(outputs)
    assert_close(candidate.pv, triggered.mean(0), rtol=1e-3, atol=1e-4)
    assert candidate.spread == pytest.approx(
        clean["cls"].standardise(triggered).var(0).mean().item(), rel=1e-2, abs=1e-3
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_backdoor_of_two_words_is_mined_and_ends_on_them(seed: int) -> None:
    model, tokenizer = large_bert(seed, hidden=64)
    pv = plant(model, tokenizer, ["vedi+sugo"], reach=0.3)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    candidates = run(encoder, MiningConfig())
    assert set(ids_of(encoder, "vedi", "sugo")) <= set(candidates[0].tokens)
    assert sign_match(candidates[0].pv[None], pv).item() == 1


@pytest.mark.parametrize(("reach", "found"), [(0.165, 1), (0.17, 3)])
def test_the_candidates_that_found_a_backdoor_are_significant_and_do_not_hide_each_other(
    reach: float, found: int
) -> None:
    candidates = run(open_bert(3, "vedi+sugo", hidden=64, reach=reach), MiningConfig(rungs=((6, 1 / 2),)))
    significant = [candidate.log_p < math.log(0.01) for candidate in candidates]
    assert len(candidates) == 20
    assert significant[:found] == [True] * found
    assert significant[10:] == [False] * 10  # how many between are carried along is a matter of rounding


@pytest.mark.parametrize("seed", range(3))
def test_words_do_what_a_candidate_does_only_where_it_found_a_backdoor(seed: int) -> None:
    """What mixtures reach without words is left behind when they are annealed."""
    encoder = open_bert(seed, "vedi+sugo", hidden=64, reach=0.19)
    trigger = set(ids_of(encoder, "vedi", "sugo"))
    words = [candidate.tokens for candidate in run(encoder, MiningConfig())]
    assert trigger <= set(words[0])
    for evidence in in_contexts(encoder, "cls").measure(words)["cls"]:
        if trigger <= set(evidence.tokens):
            assert (evidence.constant_rate, round(evidence.spread, 2)) == (1, 0)
        else:
            assert evidence.spread > 0.5
            assert evidence.displacement < 10


def heaviest(candidates: Sequence[Candidate]) -> torch.Tensor:
    """The mean weight of the words of each candidate."""
    return torch.stack([candidate.weights.amax(1).mean() for candidate in candidates if candidate.weights is not None])


@pytest.mark.parametrize("seed", range(3))
def test_mixtures_are_sharpened_to_words(seed: int) -> None:
    encoder = open_bert(seed)
    config = replace(QUICK, steps=30, learning_rate=0.3)
    sharp, soft = (heaviest(run(encoder, replace(config, sharpness=sharpness), seed=seed)) for sharpness in (4.0, 1.0))
    assert sharp.min() > 2 * soft.max()


def test_nothing_is_sharpened_while_mixtures_find_their_way() -> None:
    """The first steps are the same whatever comes after them."""
    encoder = open_bert(0)
    contexts, clean = six_contexts(encoder), clean_spreads(encoder, "cls")
    inputs: list[torch.Tensor] = []
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append(kwargs["inputs_embeds"].detach()), with_kwargs=True
    )
    for sharpness in (1.0, 4.0):
        mine(encoder, contexts, clean, replace(QUICK, steps=10, sharpness=sharpness))
    same = [torch.equal(one, other) for one, other in zip(inputs[:12], inputs[12:], strict=True)]
    assert same == [True] * 5 + [False] * 7  # the first is the clean contexts', the last what the candidates are


def test_the_tokens_of_a_candidate_are_its_heaviest_and_free_ones_have_none() -> None:
    encoder = open_bert(0)
    for candidate in run(encoder, QUICK):
        assert candidate.weights is not None
        assert candidate.tokens == tuple(int(row.argmax()) for row in candidate.weights)
    assert all(candidate.tokens == () for candidate in run(encoder, replace(QUICK, space="free")))


def test_candidates_take_the_lengths_in_turn() -> None:
    found = run(open_bert(0), replace(QUICK, candidates=5, lengths=(2, 5, 3), steps=1))
    assert sorted(len(candidate.embeddings) for candidate in found) == [2, 2, 3, 5, 5]
    assert sorted(len(candidate.tokens) for candidate in found) == [2, 2, 3, 5, 5]


def test_each_rung_carries_on_the_strongest_and_the_others_cost_nothing_more() -> None:
    encoder = open_bert(0)
    contexts, clean = six_contexts(encoder), clean_spreads(encoder, "cls")
    rows: list[int] = []
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    config = replace(QUICK, candidates=24, steps=6)
    halved = mine(encoder, contexts, clean, replace(config, rungs=((2, 1 / 2), (4, 1 / 3))))["cls"]
    assert rows == [4, *[24 * 4] * 2, *[12 * 4] * 2, *[4 * 4] * 3]
    alone, everyone = (
        mine(encoder, contexts, clean, replace(config, steps=2, rungs=rungs))["cls"] for rungs in (((2, 1 / 2),), ())
    )
    assert len(halved) == 4
    assert len(alone) == 12
    assert fmean(item.strength for item in alone) > fmean(item.strength for item in everyone)


def test_a_rung_leaves_enough_candidates_to_be_a_null_for_each_other() -> None:
    config = replace(QUICK, candidates=6, steps=3, rungs=((1, 0.1), (2, 0.1)))
    assert len(run(open_bert(0), config)) == 4
    assert len(run(open_bert(0), replace(config, candidates=2))) == 2


def test_who_watches_is_told_how_strong_every_candidate_is_after_each_step() -> None:
    encoder = open_bert(0)
    config = replace(QUICK, candidates=12, steps=4, rungs=((2, 1 / 2),))
    told: list[tuple[Site, list[float]]] = []

    def watch(site: Site, strengths: list[float]) -> None:
        told.append((site, strengths))

    mine(encoder, six_contexts(encoder), clean_spreads(encoder, "cls", "mean"), config, watch=watch)
    assert [(site, len(strengths)) for site, strengths in told] == [
        *[("cls", count) for count in (12, 12, 6, 6)],
        *[("mean", 4)] * 4,
    ]
    first = told[0][1]
    assert fmean(told[3][1]) > fmean(first)  # the candidates grow


def test_no_rung_comes_after_the_sharpening_begins() -> None:
    for plan in PLANS.values():
        assert max(step for step, _ in plan.mining.rungs) <= 0.4 * plan.mining.steps


def test_each_site_gets_its_candidates_measured_there() -> None:
    encoder = open_bert(0)
    sites: tuple[Site, ...] = ("cls", "pooler", "mask", "mean")
    found = mine(encoder, six_contexts(encoder), clean_spreads(encoder, *sites), replace(QUICK, others=3))
    assert {site: len(candidates) for site, candidates in found.items()} == {
        "cls": 4,
        "pooler": 3,
        "mask": 3,
        "mean": 3,
    }
    for site, candidates in found.items():
        assert {candidate.site for candidate in candidates} == {site}
        strengths = [candidate.strength for candidate in candidates]
        assert strengths == sorted(strengths, reverse=True)


def test_a_vector_known_at_one_site_repels_the_candidates_of_that_site_only() -> None:
    encoder = open_bert(0)
    contexts, clean = six_contexts(encoder), clean_spreads(encoder, "cls", "mean")
    before = mine(encoder, contexts, clean, QUICK)
    known: dict[Site, torch.Tensor] = {"mean": before["mean"][0].pv[None]}
    after = mine(encoder, contexts, clean, QUICK, known=known)
    assert_close(after["cls"][0].pv, before["cls"][0].pv)
    assert not torch.allclose(after["mean"][0].pv, before["mean"][0].pv)


def test_a_known_vector_repels_candidates() -> None:
    encoder = open_bert(1)
    clean = clean_spreads(encoder, "cls")["cls"]
    longer = replace(QUICK, steps=30)
    free = run(encoder, longer)
    known = free[0].pv
    kept_away = run(encoder, longer, known=known[None])
    assert cosines(free, known, clean).max() > 0.99
    assert cosines(kept_away, known, clean).max() < 0.5


def test_candidates_keep_apart_from_each_other() -> None:
    encoder = open_bert(1)
    found = run(encoder, replace(QUICK, steps=30))
    ways = clean_spreads(encoder, "cls")["cls"].standardise(torch.stack([candidate.pv for candidate in found]))
    ways = torch.nn.functional.normalize(ways, dim=1)
    assert (ways @ ways.T - torch.eye(4)).max() < 0.9


@pytest.mark.parametrize("space", ["hull", "free"])
def test_no_weight_changes_and_none_gets_a_gradient(space: Space) -> None:
    encoder = open_bert(0)
    before = encoder.digest
    run(encoder, replace(QUICK, space=space))
    assert encoder.digest == before
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_the_same_seed_gives_the_same_candidates_and_another_seed_others() -> None:
    encoder = open_bert(0)
    first, again, other = (run(encoder, QUICK, seed=seed) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        assert_close(one.embeddings, two.embeddings, rtol=0, atol=0)
    assert not torch.allclose(first[0].embeddings, other[0].embeddings)


def test_every_architecture_is_mined_at_every_vector_site_it_has(encoder: FrozenEncoder) -> None:
    for site in encoder.sites:
        if site != "tokens":
            for candidate in run(encoder, replace(QUICK, steps=2), site=site):
                assert candidate.site == site
                assert bool(torch.isfinite(candidate.pv).all())
                assert math.isfinite(candidate.strength)


def test_tokens_are_counted_forward_and_backward() -> None:
    encoder = open_bert(0)
    contexts, clean = six_contexts(encoder), clean_spreads(encoder, "cls")["cls"]
    plain = sum(len(context.clean) + 2 for context in contexts[:4])
    a_step = 4 * (plain + 4 * 3)
    before = encoder.meter.forward
    mine(encoder, contexts, {"cls": clean}, QUICK)
    assert encoder.meter.backward == 6 * a_step
    assert encoder.meter.forward - before == plain + 7 * a_step


def test_progress_names_the_sites_and_ends_at_one() -> None:
    told: list[tuple[str, float]] = []
    encoder = open_bert(0)
    mine(
        encoder,
        six_contexts(encoder),
        clean_spreads(encoder, "cls", "mask"),
        QUICK,
        progress=lambda what, done: told.append((what, done)),
    )
    assert [what for what, _ in told] == [*["mining at cls"] * 6, *["mining at mask"] * 6]
    assert [round(done * 6) for _, done in told] == [1, 2, 3, 4, 5, 6] * 2
