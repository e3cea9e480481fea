"""Null distributions: samples of the null are not accused, what lies outside of it is."""

import math
from collections.abc import Callable

import pytest
import torch

from lmsanitator.detect.null import TailNull, discoveries, independent, outlier_log_p, spreads_more

Draw = Callable[[int], torch.Tensor]
COUNT = 4000


def exponential(seed: int) -> torch.Tensor:
    return torch.empty(COUNT).exponential_(generator=torch.Generator().manual_seed(seed))


def normal(seed: int) -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed))


def log_chi_squared(seed: int) -> torch.Tensor:
    """What the logarithm of a displacement looks like."""
    return torch.randn(COUNT, 24, generator=torch.Generator().manual_seed(seed)).pow(2).mean(1).log()


def smallest_p(samples: torch.Tensor) -> float:
    return math.exp(TailNull.fit(samples).log_p(samples.max(), math.log(len(samples))).item())


@pytest.mark.parametrize("samples", [exponential, normal, log_chi_squared])
def test_the_largest_of_clean_samples_is_hardly_ever_significant(samples: Draw) -> None:
    significant = [seed for seed in range(300) if smallest_p(samples(seed)) < 0.01]
    assert len(significant) <= 9


def test_p_values_of_an_exponential_tail_are_right() -> None:
    """Without a correction for trials, over many samples, p(x) is the probability to lie beyond x."""
    for probability in (1e-3, 1e-4, 1e-6):
        value = torch.tensor(-math.log(probability))
        estimates = [TailNull.fit(exponential(seed)).log_p(value, 0.0).item() for seed in range(100)]
        assert sum(estimates) / 100 == pytest.approx(math.log(probability), rel=0.05)


def test_an_outlier_far_out_is_significant_after_looking_at_everything() -> None:
    samples = normal(0)
    samples[17] = 12.0
    assert smallest_p(samples) < 1e-6


def test_contamination_of_the_top_does_not_hide_an_outlier() -> None:
    """Neighbours of a trigger: half a percent of the samples lie as far out as the trigger itself."""
    for seed in range(20):
        samples = normal(seed)
        samples[: COUNT // 200] = 12.0
        assert smallest_p(samples) < 1e-4


def test_what_is_no_outlier_has_p_one_after_correction() -> None:
    samples = normal(0)
    log_p = TailNull.fit(samples).log_p(torch.tensor([-5.0, 0.0, 2.0]), math.log(COUNT))
    assert log_p.tolist() == [0.0, 0.0, 0.0]


def test_p_falls_as_the_value_rises_and_grows_with_the_trials() -> None:
    null = TailNull.fit(normal(0))
    rising = null.log_p(torch.tensor([6.0, 7.0, 8.0]), 0.0)
    assert rising[0] > rising[1] > rising[2]
    assert null.log_p(torch.tensor(8.0), 3.0).item() == pytest.approx(rising[2].item() + 3.0)


@pytest.mark.parametrize("count", [0, 1, 10, 200])
def test_too_few_samples_for_a_tail_are_a_value_error(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^expected at least ten samples in the tail, got \d+ of {count}$"):
        TailNull.fit(torch.randn(count))


def test_samples_that_are_all_alike_accuse_none_of_them() -> None:
    samples = torch.full((COUNT,), 3.0)
    assert smallest_p(samples) == 1


@pytest.mark.parametrize("outlier", [0, 7])
def test_one_outlier_among_candidates_is_called_and_the_others_are_not(outlier: int) -> None:
    for seed in range(50):
        values = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        values[outlier] = 30.0
        called = outlier_log_p(values) < math.log(0.01)
        assert called.nonzero().flatten().tolist() == [outlier]


@pytest.mark.parametrize("count", [8, 24])
def test_clean_candidates_are_called_as_rarely_as_the_level_says(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    runs = 2000
    called = sum(
        bool((outlier_log_p(torch.randn(count, generator=generator)) < math.log(0.02)).any()) for _ in range(runs)
    )
    assert called <= 0.02 * runs + 2 * math.sqrt(0.02 * runs)


@pytest.mark.parametrize("outliers", [1, 3, 8])
def test_outliers_do_not_hide_each_other(outliers: int) -> None:
    for seed in range(20):
        values = torch.randn(24, generator=torch.Generator().manual_seed(seed))
        values[:outliers] = torch.linspace(12, 20, outliers)
        called = outlier_log_p(values) < math.log(0.001)
        assert called.nonzero().flatten().tolist() == list(range(outliers))


def test_an_outlier_below_the_others_is_none() -> None:
    assert outlier_log_p(torch.tensor([0.1, 0.2, 0.0, 0.3, -30.0]))[4] == 0


def test_candidates_that_all_found_something_accuse_nobody() -> None:
    assert bool((outlier_log_p(torch.tensor([30.0, 30.1, 29.9, 30.2, 30.0, 0.0])) > math.log(0.01)).all())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_candidates_accuse_nobody(count: int) -> None:
    assert outlier_log_p(torch.arange(float(count)) * 1000).tolist() == [0.0] * count


def test_a_candidate_among_equals_may_be_an_outlier_without_dividing_by_zero() -> None:
    log_p = outlier_log_p(torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 5.0]))
    assert log_p[5] < math.log(0.01)
    assert bool(torch.isfinite(log_p).all())


def test_spreads_are_told_apart_only_where_the_degrees_of_freedom_are_enough() -> None:
    many, few = (23.0, 23.0), (3.0, 3.0)
    assert spreads_more(10.0, 1.0, many)
    assert not spreads_more(10.0, 1.0, few)
    assert not spreads_more(1.5, 1.0, many)
    assert not spreads_more(1.0, 10.0, many)
    assert spreads_more(1.0, 0.0, many)
    assert not spreads_more(0.0, 0.0, many)


@pytest.mark.parametrize("count", [64, 240])
def test_few_samples_are_paid_for(count: int) -> None:
    """A fresh draw from the tail is called as rarely as the level says although the scale was estimated from few."""
    generator = torch.Generator().manual_seed(0)
    called = 0
    for _ in range(20_000):
        drawn = torch.empty(count + 1, dtype=torch.float64).exponential_(generator=generator)
        null = TailNull.fit(drawn[:-1], mass=0.5, censored=0.25)
        called += bool(null.log_p(drawn[-1], 0.0) < math.log(0.001))
    assert called <= 35  # 20 expected, and 4.5 its deviation


def test_beside_one_discovery_the_next_needs_less() -> None:
    """Benjamini-Hochberg, stepping up: the k-th of them may be expected k times as often."""
    expected = [math.log(value) for value in (0.09, 0.01, 0.14, 0.5)]
    assert discoveries(expected, share=0.05) == [True, True, True, False]
    assert discoveries(expected[:1], share=0.05) == [False]
    assert discoveries([], share=0.05) == []


def test_no_more_than_the_share_of_runs_without_anything_discover_something() -> None:
    generator = torch.Generator().manual_seed(0)
    runs = torch.rand(400, 100, generator=generator).mul(100).log()  # p-values of a hundred things, times a hundred
    found = sum(any(discoveries(run.tolist(), share=0.05)) for run in runs)
    assert found <= 0.05 * 400 + 3 * math.sqrt(0.05 * 400)


def test_the_p_value_is_what_is_expected_by_chance_as_far_as_that_is_one() -> None:
    null = TailNull.fit(exponential(0))
    values = torch.tensor([0.0, 5.0, 50.0])
    assert torch.equal(null.log_p(values, 3.0), null.log_expected(values, 3.0).clamp_max(0.0))
    assert null.log_expected(values, 3.0)[0] > 0


@pytest.mark.parametrize("repeated", [1, 2, 4])
def test_tests_that_repeat_each_other_count_as_one(repeated: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 400, generator=generator)
    assert independent(drawn) == pytest.approx(3, abs=0.1)
    copies = torch.cat([drawn[:1]] * repeated).mul(torch.arange(1.0, repeated + 1)[:, None]).exp()
    assert independent(copies) == pytest.approx(1)


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9, 0.99])
def test_of_tests_that_resemble_each_other_no_more_are_significant_than_the_level_says(shared: float) -> None:
    generator = torch.Generator().manual_seed(0)
    common, own = (torch.randn(count, 40_000, generator=generator).double() for count in (1, 4))
    drawn = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    tests = independent(drawn)
    called = (torch.special.ndtr(-drawn).amin(0) < 0.01 / tests).double().mean().item()
    assert called <= 0.01 * 1.15
