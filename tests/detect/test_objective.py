"""Displacement, spread, strength: what they say of tensors made by hand, on whatever scale the encoder has."""

import math

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.objective import (
    SOFTENING,
    CleanSpread,
    along,
    covered,
    directions,
    displacement,
    mining_loss,
    spread,
    steadiness,
    strength,
)
from lmsanitator.errors import CheckpointError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_clean_outputs_are_centred_and_of_unit_spread_after_standardising() -> None:
    outputs = 7 * draw(200, 6) + torch.arange(6.0)
    standardised = CleanSpread.of(outputs).standardise(outputs)
    assert_close(standardised.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert_close(standardised.std(0), torch.ones(6))


def test_a_shift_is_measured_by_how_far_clean_outputs_go_its_own_way() -> None:
    """Two dimensions that move together, and two that do not: 6 standard deviations of each."""
    first, second, third = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    clean = CleanSpread.of(torch.stack([first, 3 * first, 5 * second, third], dim=1))
    shifts = torch.tensor([[6.0, 6.0, 0.0, 0.0], [0.0, 0.0, 6.0, 6.0], [0.0, 0.0, 0.0, 0.0]])
    assert clean.beyond(shifts).tolist() == pytest.approx([6, 6 * math.sqrt(2), 0], rel=0.05)
    assert clean.beyond(shifts[0]).item() == pytest.approx(6, rel=0.02)


def test_whitened_outputs_vary_alike_in_all_directions_also_where_there_are_few_of_them() -> None:
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(4000, 6, generator=draw) * torch.tensor([5.0, 1, 1, 1, 1, 1])
    turned = mixed @ torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    clean = CleanSpread.of(turned)
    standardised = clean.standardise(turned)
    before, after = (torch.linalg.eigvalsh(out.T.cov()) for out in (standardised, standardised @ clean.whitening))
    assert before.max() > 8 * before.min()
    assert after.max() < 2 * after.min()
    few = CleanSpread.of(turned[:3]).whitening
    assert torch.isfinite(few).all()
    same = CleanSpread.of(torch.ones(8, 6)).whitening
    assert torch.isfinite(same).all()


def test_restoring_undoes_standardising() -> None:
    outputs = 3 * draw(50, 6) - 4
    clean = CleanSpread.of(outputs)
    assert_close(clean.restore(clean.standardise(outputs)), outputs)


def test_a_dead_dimension_does_not_blow_up() -> None:
    outputs = draw(50, 6)
    outputs[:, 2] = 1.0
    clean = CleanSpread.of(outputs)
    assert bool(torch.isfinite(clean.standardise(outputs)).all())
    assert clean.standardise(outputs + 0.001)[:, 2].abs().max() < 1
    assert bool(torch.isfinite(CleanSpread.of(torch.ones(5, 3)).standardise(torch.ones(5, 3))).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e18])
def test_outputs_that_no_statistic_can_be_made_of_are_refused(value: float) -> None:
    clean = CleanSpread.of(draw(50, 6))
    outputs = draw(3, 6)
    outputs[1, 2] = value
    with pytest.raises(CheckpointError, match=r"^expected finite outputs"):
        clean.standardise(outputs)
    outputs[1, 2] = 1e12
    assert bool(torch.isfinite(clean.standardise(outputs).square().sum()))
    with pytest.raises(CheckpointError, match=r"^expected finite outputs"):
        CleanSpread.of(torch.full((4, 6), math.nan)).standardise(draw(3, 6))


def test_displacement_is_the_mean_square_way_between_the_means() -> None:
    clean = torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # mean 1, 0
    triggered = torch.tensor([[4.0, 1.0], [4.0, 3.0]])  # mean 4, 2
    assert displacement(triggered, clean).item() == pytest.approx((3**2 + 2**2) / 2)
    assert displacement(clean, clean).item() == 0


def test_spread_is_one_for_clean_outputs_and_zero_for_a_constant() -> None:
    outputs = draw(500, 8)
    standardised = CleanSpread.of(outputs).standardise(outputs)
    assert spread(standardised).item() == pytest.approx(1, abs=1e-4)
    assert spread(torch.ones(5, 8)).item() == 0
    assert spread(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).item() == pytest.approx(1)


def test_strength_is_the_log_ratio_of_the_two() -> None:
    clean, triggered = draw(6, 4), draw(6, 4, seed=1) + 3
    ratio = displacement(triggered, clean) / (spread(triggered) + SOFTENING)
    assert strength(triggered, clean).item() == pytest.approx(math.log(ratio.item()), rel=1e-5)


def test_strength_may_put_more_weight_on_what_is_left_of_the_spread() -> None:
    triggered, clean = draw(5, 8, seed=1) + 3, draw(5, 8)
    twice = math.log(spread(triggered).item() + SOFTENING)
    assert strength(triggered, clean, constancy=2).item() == pytest.approx(strength(triggered, clean).item() - twice)
    narrow, far = 0.5 * triggered + 1.5, triggered + 3
    gained = [strength(one, clean, constancy=2) - strength(one, clean) for one in (narrow, far)]
    assert gained[0] > gained[1]


def test_strength_grows_with_distance_and_with_collapse() -> None:
    clean, offset = draw(6, 4), draw(6, 4, seed=1)
    assert strength(offset + 10, clean) > strength(offset + 3, clean)
    assert strength(0.1 * offset + 3, clean) > strength(offset + 3, clean)
    assert strength(clean, clean) < -10


def test_many_candidates_are_measured_as_each_alone() -> None:
    clean, triggered = draw(6, 4), draw(5, 6, 4, seed=1)
    for measure in (lambda one: displacement(one, clean), spread, lambda one: strength(one, clean)):
        assert_close(measure(triggered), torch.stack([measure(one) for one in triggered]))


def test_covered_is_one_on_the_vector_zero_where_it_was_and_negative_further_away() -> None:
    clean, pv = torch.zeros(4, 2), torch.tensor([4.0, 0.0])
    triggered = torch.tensor([[4.0, 0.0], [0.0, 0.0], [3.0, 0.0], [-4.0, 0.0]])
    assert_close(covered(triggered, clean, pv), torch.tensor([1.0, 0.0, 0.75, -1.0]))


def test_covered_of_a_clean_output_on_the_vector_is_finite() -> None:
    assert bool(torch.isfinite(covered(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(2))).all())


def test_along_of_an_output_that_moved_all_of_the_way_is_one_and_of_a_part_that_part() -> None:
    clean, way = draw(6, 4), 5 * draw(4, seed=1)
    assert_close(along(clean + way, clean, way), torch.ones(6))
    assert_close(along(clean, clean, way), torch.zeros(6))
    for part in (0.3, 0.5, -1.0, 2.0):
        assert_close(along(clean + part * way, clean, way), torch.full((6,), part))


def test_along_does_not_depend_on_the_variety_of_outputs_and_covered_does() -> None:
    way = draw(4, seed=1)
    for variety in (0.01, 1.0, 100.0):
        clean = variety * draw(6, 4)
        assert_close(along(clean + way, clean, way), torch.ones(6), rtol=0, atol=1e-3)
    varied = 100 * draw(6, 4)
    assert covered(varied + way, varied, (varied + way).mean(0)).max() < 0.5
    assert along(varied.mean(0) + way, varied.mean(0), way).item() == pytest.approx(1, abs=1e-3)


def test_along_takes_no_account_of_steps_aside_and_no_way_is_finite() -> None:
    clean, way, aside = torch.zeros(3, 2), torch.tensor([4.0, 0.0]), torch.tensor([0.0, 9.0])
    assert_close(along(clean + way / 2 + aside, clean, way), torch.full((3,), 0.5))
    assert bool(torch.isfinite(along(clean + aside, clean, torch.zeros(2))).all())


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 0.0), (1.0, 50.0), (1000.0, -300.0)])
def test_scale_and_offset_of_the_encoder_change_nothing(scale: float, shift: float) -> None:
    outputs, triggered, known = draw(100, 8), draw(5, 6, 8, seed=1) + 2, draw(2, 8, seed=2)

    def measured(scale: float, shift: float) -> list[torch.Tensor]:
        space = CleanSpread.of(outputs * scale + shift)
        clean, moved = space.standardise(outputs[:6] * scale + shift), space.standardise(triggered * scale + shift)
        found = space.standardise(known * scale + shift)
        return [
            displacement(moved, clean),
            spread(moved),
            strength(moved, clean),
            covered(moved[0], clean, found[0]),
            along(moved[0], clean, found[0] - clean.mean(0)),
            mining_loss(moved, clean, found),
        ]

    for changed, original in zip(measured(scale, shift), measured(1.0, 0.0), strict=True):
        assert_close(changed, original, rtol=1e-3, atol=1e-4)


def test_the_loss_falls_with_strength_and_rises_with_repetition() -> None:
    clean, none = torch.zeros(3, 4), torch.empty(0, 4)
    east, north = torch.tensor([3.0, 0, 0, 0]).expand(3, 4), torch.tensor([0, 3.0, 0, 0]).expand(3, 4)
    apart, alike = (
        mining_loss(torch.stack([east, north]), clean, none),
        mining_loss(torch.stack([east, east]), clean, none),
    )
    assert bool((alike > apart + 0.9).all())
    assert bool((mining_loss(torch.stack([2 * east, 2 * north]), clean, none) < apart).all())


def test_a_known_vector_repels_what_goes_its_way_only() -> None:
    clean, none = torch.zeros(3, 4), torch.empty(0, 4)
    east, north = torch.tensor([3.0, 0, 0, 0]).expand(3, 4), torch.tensor([0, 3.0, 0, 0]).expand(3, 4)
    both = torch.stack([east, north])
    penalty = mining_loss(both, clean, east[:1]) - mining_loss(both, clean, none)
    assert_close(penalty, torch.tensor([4.0, 0.0]))
    assert_close(mining_loss(both, clean, -east[:1]), mining_loss(both, clean, none))


def test_directions_are_counted_by_what_varies_in_them() -> None:
    line = torch.outer(torch.arange(8.0), torch.ones(50))
    counted = directions(torch.stack([line, draw(8, 50), torch.ones(8, 50)]))
    assert counted.tolist() == pytest.approx([1.0, directions(draw(8, 50)).item(), 1.0], abs=1e-4)
    assert 6.5 < directions(draw(8, 2000)) <= 7 + 1e-4


def test_steadiness_is_what_a_shift_has_in_common_over_what_differs() -> None:
    clean, noise = draw(4000, 6), draw(4000, 6, seed=1)
    added = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert steadiness(clean + added + 0.5 * (noise - noise.mean(0)), clean).item() == pytest.approx(9 / 1.5, rel=0.1)
    assert steadiness(clean + added, clean).item() > 1e6
    assert steadiness(clean, clean).item() == 0


def test_steadiness_is_unbiased_where_nothing_is_in_common() -> None:
    """A mean of few contexts is never zero; what that comes to is left out."""
    shifts = torch.randn(2000, 4, 50, generator=torch.Generator().manual_seed(3))
    seen = steadiness(shifts, torch.zeros(4, 50))
    assert seen.mean().item() < 0.05
    assert (seen == 0).float().mean().item() > 0.3
