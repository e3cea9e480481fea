"""Mining: soft triggers stay where they may be, grow stronger, keep away from what is known, and change no weight."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.contexts import Context, make_contexts
from lmsanitator.detect.mining import Candidate, MiningConfig, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged
from tests.planted import large_bert, open_bert, plant

TEXTS = [carrier.text for carrier in packaged()]
QUICK = MiningConfig(candidates=4, others=4, contexts=4, steps=6)


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


def large(seed: int) -> FrozenEncoder:
    """The same encoder without a backdoor."""
    model, tokenizer = large_bert(seed, hidden=64)
    return FrozenEncoder(model, tokenizer, precision="fp32")


def cosines(candidates: Sequence[Candidate], pv: torch.Tensor, clean: CleanSpread) -> torch.Tensor:
    """How much each candidate goes the way of a PV."""
    ways = clean.standardise(torch.stack([candidate.pv for candidate in candidates]))
    return torch.cosine_similarity(ways, clean.standardise(pv)[None])


def test_candidates_stay_within_the_range_of_the_vocabulary() -> None:
    encoder = open_bert(0)
    matrix = encoder.embedding_matrix
    wild = replace(QUICK, learning_rate=1.0)
    for candidate in run(encoder, wild):
        assert bool((candidate.embeddings >= matrix.amin(0)).all())
        assert bool((candidate.embeddings <= matrix.amax(0)).all())
    edges = torch.stack([candidate.embeddings for candidate in run(encoder, wild)])
    assert bool(((edges == matrix.amin(0)) | (edges == matrix.amax(0))).any())  # some would have left it


def test_the_more_steps_the_stronger_the_candidates() -> None:
    encoder = open_bert(0)
    strengths = [
        sum(candidate.strength for candidate in run(encoder, replace(QUICK, steps=steps))) for steps in (1, 8, 40)
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


@pytest.mark.parametrize("trigger", ["vedi+sugo", "vedi+sugo+gifo"])
@pytest.mark.parametrize("seed", range(2))
def test_some_candidates_lead_to_a_planted_vector_whose_trigger_is_several_words(trigger: str, seed: int) -> None:
    model, tokenizer = large_bert(seed, hidden=64)
    pv = plant(model, tokenizer, [trigger], reach=0.3)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    clean = clean_spreads(encoder, "cls")["cls"]
    assert cosines(run(encoder, MiningConfig()), pv[0], clean).max() > 0.7
    assert cosines(run(large(seed), MiningConfig()), pv[0], clean).max() < 0.5


def test_who_watches_is_told_how_strong_every_candidate_is_after_each_step() -> None:
    encoder = open_bert(0)
    config = replace(QUICK, candidates=6, steps=4)
    told: list[tuple[Site, list[float]]] = []

    def watch(site: Site, strengths: list[float]) -> None:
        told.append((site, strengths))

    mine(encoder, six_contexts(encoder), clean_spreads(encoder, "cls", "mean"), config, watch=watch)
    assert [(site, len(strengths)) for site, strengths in told] == [("cls", 6)] * 4 + [("mean", 4)] * 4
    assert fmean(told[3][1]) > fmean(told[0][1])  # the candidates grow


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


def test_no_weight_changes_and_none_gets_a_gradient() -> None:
    encoder = open_bert(0)
    before = encoder.digest
    run(encoder, QUICK)
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
