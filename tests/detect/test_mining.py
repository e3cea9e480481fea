"""Mining: soft triggers stay where they may be, grow stronger, keep away from what is known, and change no weight."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.contexts import Context, make_contexts
from lmsanitator.detect.mining import Candidate, MiningConfig, Space, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import word_pool
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged
from lmsanitator.vectors import sign_match
from tests.planted import large_bert, open_bert, plant

TEXTS = [carrier.text for carrier in packaged()]
QUICK = MiningConfig(candidates=4, length=3, contexts=4, steps=6)


def clean_spread(encoder: FrozenEncoder, site: Site) -> CleanSpread:
    return CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], [site])[site])


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
    return mine(encoder, site, six_contexts(encoder), clean_spread(encoder, site), config, known=known, seed=seed)


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
    clean, contexts = clean_spread(encoder, "cls"), six_contexts(encoder)
    candidate = mine(encoder, "cls", contexts, clean, QUICK)[0]
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
    assert candidate.spread == pytest.approx(clean.standardise(triggered).var(0).mean().item(), rel=1e-2, abs=1e-3)


def test_a_backdoor_within_reach_is_mined_and_its_words_head_the_pool() -> None:
    model, tokenizer = large_bert(2)
    pv = plant(model, tokenizer, ["vedi+sugo"], reach=0.3)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    found = run(encoder, MiningConfig())[0]
    assert sign_match(found.pv[None], pv).item() == 1
    assert found.log_p < math.log(0.01)
    pool = word_pool(found, encoder.embedding_matrix(), set(sweepable(encoder).tolist()), 768)
    assert {"vedi", "sugo"} <= set(tokenizer.convert_ids_to_tokens(pool[:6]))


def test_a_known_vector_repels_candidates() -> None:
    encoder = open_bert(1)
    clean = clean_spread(encoder, "cls")
    longer = replace(QUICK, steps=30)
    free = run(encoder, longer)
    known = free[0].pv
    kept_away = run(encoder, longer, known=known[None])
    assert cosines(free, known, clean).max() > 0.99
    assert cosines(kept_away, known, clean).max() < 0.5


def test_candidates_keep_apart_from_each_other() -> None:
    encoder = open_bert(1)
    found = run(encoder, replace(QUICK, steps=30))
    ways = clean_spread(encoder, "cls").standardise(torch.stack([candidate.pv for candidate in found]))
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
    contexts, clean = six_contexts(encoder), clean_spread(encoder, "cls")
    plain = sum(len(context.clean) + 2 for context in contexts[:4])
    a_step = 4 * (plain + 4 * 3)
    before = encoder.meter.forward
    mine(encoder, "cls", contexts, clean, QUICK)
    assert encoder.meter.backward == 6 * a_step
    assert encoder.meter.forward - before == plain + 7 * a_step


def test_progress_names_the_site_and_ends_at_one() -> None:
    told: list[tuple[str, float]] = []
    encoder = open_bert(0)
    mine(
        encoder,
        "pooler",
        six_contexts(encoder),
        clean_spread(encoder, "pooler"),
        QUICK,
        progress=lambda what, done: told.append((what, done)),
    )
    assert {what for what, _ in told} == {"mining at pooler"}
    assert [round(done * 6) for _, done in told] == [1, 2, 3, 4, 5, 6]
