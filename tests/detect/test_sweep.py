"""The sweep: every token is tried, the planted one stands out, nothing else does."""

import math

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.sweep import SweepConfig, SweepResult, sweep, sweepable
from lmsanitator.encoder import FrozenEncoder
from tests.planted import open_bert

LEVEL = math.log(0.01)


def standing_out(encoder: FrozenEncoder, result: SweepResult) -> set[str]:
    """The tokens whose p-value is below the level."""
    return set(encoder.tokenizer.convert_ids_to_tokens(result.tokens[result.log_p < LEVEL].tolist()))


def test_a_planted_token_has_by_far_the_smallest_p_value() -> None:
    encoder = open_bert(0, "bako")
    result = sweep(encoder, ["cls"], SweepConfig())["cls"]
    ordered = result.log_p.sort()
    strongest = int(result.tokens[ordered.indices[0]])
    assert encoder.tokenizer.convert_ids_to_tokens(strongest) == "bako"
    assert ordered.values[0] < 10 * LEVEL
    assert bool((ordered.values[1:] > LEVEL).all())


def test_no_token_but_the_planted_one_stands_out_in_every_shuffle() -> None:
    """One that happens to share its groups with the trigger twice is carried along, in that shuffle only."""
    encoder = open_bert(1, "bako")
    shuffles = [standing_out(encoder, sweep(encoder, ["cls"], SweepConfig(), seed=seed)["cls"]) for seed in range(4)]
    assert set.intersection(*shuffles) == {"bako"}


def test_several_planted_tokens_all_stand_out() -> None:
    encoder = open_bert(2, "bako", "vedi", "sugo")
    result = sweep(encoder, ["cls"], SweepConfig())["cls"]
    assert {"bako", "vedi", "sugo"} <= standing_out(encoder, result)


def test_words_that_only_fire_together_are_invisible_to_the_sweep() -> None:
    encoder = open_bert(0, "vedi+sugo")
    assert not standing_out(encoder, sweep(encoder, ["cls"], SweepConfig())["cls"])


def test_no_token_of_a_clean_encoder_stands_out() -> None:
    for seed in range(8):
        encoder = open_bert(seed)
        for result in sweep(encoder, ["cls", "pooler"], SweepConfig(), seed=seed).values():
            assert result.log_p.min() > LEVEL


def test_a_planted_token_heads_the_shortlist_whose_length_is_kept() -> None:
    encoder = open_bert(0, "bako")
    result = sweep(encoder, ["cls"], SweepConfig())["cls"]
    short = result.shortlist(12)
    assert short[0] == encoder.tokenizer.convert_tokens_to_ids("bako")
    assert 12 <= len(short) == len(set(short)) <= 24
    assert len(result.shortlist(10**6)) == len(result.tokens)


def test_every_token_but_the_special_ones_is_tried(encoder: FrozenEncoder) -> None:
    tokens = set(sweepable(encoder).tolist())
    assert tokens == set(range(len(encoder.tokenizer))) - set(encoder.tokenizer.all_special_ids)
    tried: set[int] = set()
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: tried.update(kwargs["input_ids"].flatten().tolist()), with_kwargs=True
    )
    sweep(encoder, ["mean"], SweepConfig(rounds=2))
    assert tokens <= tried


def test_all_sites_come_from_the_same_passes_at_the_cost_that_is_counted() -> None:
    encoder = open_bert(0, "bako")
    config = SweepConfig(rounds=3, group=20)
    groups = -(-len(sweepable(encoder)) // config.group)
    both = sweep(encoder, ["cls", "pooler"], config)
    assert encoder.meter.forward == config.rounds * groups * (config.group + 2)
    assert encoder.meter.backward == 0
    alone = sweep(encoder, ["cls"], config)["cls"]
    assert_close(both["cls"].displacement, alone.displacement)
    assert_close(both["cls"].spread, alone.spread)
    assert set(both) == {"cls", "pooler"}
    for result in both.values():
        assert "bako" in standing_out(encoder, result)


def test_displacement_and_spread_are_what_a_plain_loop_over_groups_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are made up here: each group gives the sum of its tokens' own vectors."""
    encoder = open_bert(0, vocabulary=300)
    own = torch.randn(len(encoder.tokenizer), encoder.hidden_size, generator=torch.Generator().manual_seed(1))
    seen: list[tuple[list[int], torch.Tensor]] = []

    def outputs_of_ids(bodies: list[list[int]], sites: list[str]) -> dict[str, torch.Tensor]:
        values = torch.stack([own[body].sum(0) for body in bodies])
        seen.extend(zip(bodies, values, strict=True))
        return dict.fromkeys(sites, values)

    monkeypatch.setattr(encoder, "outputs_of_ids", outputs_of_ids)
    result = sweep(encoder, ["cls"], SweepConfig(rounds=3, group=7))["cls"]
    first_round = torch.stack([values for _, values in seen[: len(seen) // 3]])
    mean, deviation = first_round.mean(0), first_round.std(0)
    for index in range(0, len(result.tokens), 50):
        token = int(result.tokens[index])
        met = [(values - mean) / deviation for body, values in seen if token in body]
        if len(met) != 3:
            continue  # one that filled up the last group
        pairs = [(met[0] * met[1]).mean(), (met[0] * met[2]).mean(), (met[1] * met[2]).mean()]
        assert_close(result.displacement[index], torch.stack(pairs).mean())
        assert_close(result.spread[index], torch.stack(met).var(0).mean())


def test_the_same_seed_gives_the_same_sweep_and_another_seed_another() -> None:
    encoder = open_bert(0)
    first, again, other = (sweep(encoder, ["cls"], SweepConfig(), seed=seed)["cls"] for seed in (3, 3, 4))
    assert_close(first.displacement, again.displacement, rtol=0, atol=0)
    assert not torch.allclose(first.displacement, other.displacement)


def test_progress_runs_from_the_start_to_the_end() -> None:
    steps: list[float] = []
    sweep(open_bert(0), ["cls"], SweepConfig(), progress=lambda what, done: steps.append(done))
    assert steps == sorted(steps)
    assert steps[0] < 0.1
    assert steps[-1] == 1
