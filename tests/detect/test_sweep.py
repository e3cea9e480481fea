"""The sweep: every token is tried, and the planted ones are shortlisted."""

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.sweep import SweepConfig, SweepResult, outliers, sweep, sweepable
from lmsanitator.encoder import FrozenEncoder, roles
from tests.planted import ids_of, large_bert, open_bert


def shortlisted(encoder: FrozenEncoder, result: SweepResult) -> list[str]:
    return list(map(str, encoder.tokenizer.convert_ids_to_tokens(result.shortlist.tolist())))


def test_a_planted_token_is_furthest_by_far_and_among_the_most_constant() -> None:
    """Those that shared a group with it more than once are the runners-up."""
    encoder = open_bert(0, "bako")
    result = sweep(encoder, ["cls"], SweepConfig())["cls"]
    planted = result.tokens.tolist().index(encoder.tokenizer.convert_tokens_to_ids("bako"))
    ordered = result.displacement.sort(descending=True)
    assert ordered.indices[0] == planted
    assert ordered.values[0] > 2 * ordered.values[1]
    assert result.spread.argsort().tolist().index(planted) < SweepConfig().constant


@pytest.mark.parametrize("seed", range(4))
def test_several_planted_tokens_head_the_shortlist_in_every_shuffle(seed: int) -> None:
    encoder = open_bert(2, "bako", "vedi", "sugo")
    result = sweep(encoder, ["cls"], SweepConfig(), seed=seed)["cls"]
    assert {"bako", "vedi", "sugo"} <= set(shortlisted(encoder, result)[:8])


def test_words_that_only_fire_together_are_invisible_to_the_sweep() -> None:
    """Nothing of them shows unless they happen to meet."""
    planted, clean = (sweep(open_bert(0, *triggers), ["cls"], SweepConfig())["cls"] for triggers in (["vedi+sugo"], []))
    assert_close(planted.displacement, clean.displacement)
    assert_close(planted.spread, clean.spread)


def test_outliers_are_the_furthest_and_the_most_constant_each_once() -> None:
    displacement, spread = torch.linspace(0, 1, 100), torch.linspace(0, 1, 100)
    unusual = displacement.roll(50)  # the largest at 49
    shape = SweepConfig(far=3, unusual=2, constant=2)
    assert outliers(displacement, unusual, spread, shape).tolist() == [99, 98, 97, 49, 48, 0, 1]
    assert outliers(displacement, displacement, 1 - spread, shape).tolist() == [99, 98, 97]
    everything = outliers(displacement, unusual, spread, SweepConfig(far=10**6, unusual=10**6, constant=10**6))
    assert sorted(everything.tolist()) == list(range(100))


def test_what_displaces_outputs_in_an_unusual_direction_is_shortlisted_though_others_go_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs are made up here: every token adds to one of a few directions, but one to a direction of its own, and
    not as far as most."""
    encoder = open_bert(0, vocabulary=300)
    hidden = encoder.hidden_size
    draw = torch.Generator().manual_seed(1)
    usual = torch.linalg.qr(torch.randn(hidden, hidden, generator=draw)).Q
    own = torch.randn(len(encoder.tokenizer), 3, generator=draw) @ usual[:3]
    (planted,) = ids_of(encoder, "bako")
    own[planted] = 0.7 * usual[3]

    def outputs_of_ids(bodies: list[list[int]], sites: list[str]) -> dict[str, torch.Tensor]:
        noise = 0.05 * torch.randn(len(bodies), hidden, generator=draw)
        return dict.fromkeys(sites, torch.stack([own[body].sum(0) for body in bodies]) + noise)

    monkeypatch.setattr(encoder, "outputs_of_ids", outputs_of_ids)
    shape = SweepConfig(group=7, far=4, unusual=4, constant=0)
    result = sweep(encoder, ["cls"], shape)["cls"]
    place = result.tokens.tolist().index(planted)
    assert place not in result.displacement.topk(4).indices
    assert place == result.unusual.argmax()
    assert planted in result.shortlist


def test_the_foremost_are_two_by_displacement_for_each_one_by_constancy() -> None:
    tokens = torch.arange(100, 200)
    result = SweepResult(tokens, torch.linspace(0, 1, 100), torch.zeros(100), torch.linspace(0, 1, 100), tokens)
    assert result.foremost(7) == [199, 198, 100, 197, 196, 101, 195]
    assert sorted(result.foremost(10**6)) == tokens.tolist()
    alike = SweepResult(tokens, torch.linspace(0, 1, 100), torch.zeros(100), torch.linspace(1, 0, 100), tokens)
    assert alike.foremost(4) == [199, 198, 197, 196]


def test_every_token_but_the_special_ones_is_tried(encoder: FrozenEncoder) -> None:
    tokens = set(sweepable(encoder).tolist())
    assert tokens == set(encoder.tokenizer.get_vocab().values()) - roles(encoder.tokenizer).keys()
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
        assert shortlisted(encoder, result)[0] == "bako"


def test_groups_are_as_large_as_the_window_or_a_small_vocabulary_allows() -> None:
    short = FrozenEncoder(*large_bert(0, vocabulary=300, window=20), precision="fp32")
    sweep(short, ["cls"], SweepConfig(rounds=2))
    groups = -(-len(sweepable(short)) // short.room)
    assert short.meter.forward == 2 * groups * (short.room + 2)


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
