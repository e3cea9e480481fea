"""Thresholds from clean text: the false-flag rate that was asked for is kept on texts of the same kind."""

import pytest
import torch

from lmsanitator.errors import CorpusError
from lmsanitator.guard import Thresholds
from lmsanitator.guard.thresholds import clean_texts, highest, settle
from lmsanitator.text import packaged, words


def drawn(texts: int, seed: int, passes: int = 2, vectors: int = 5) -> torch.Tensor:
    """Matches of clean texts with heavy tails, and another scale for each PV."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(texts, passes, vectors, generator=generator)
    heavy = normal / torch.rand(texts, 1, 1, generator=generator).sqrt()
    return 0.5 + heavy * torch.linspace(0.01, 0.05, vectors)


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.1])
def test_the_mean_rate_of_false_flags_is_what_was_asked_for_over_all_vectors_and_passes(rate: float) -> None:
    fresh = drawn(4000, seed=10_000)
    rates = []
    for seed in range(60):
        thresholds = Thresholds(drawn(480, seed), rate, step=1e-3)
        assert 0 < thresholds.rate <= rate
        rates.append(float((fresh > thresholds.flag).flatten(1).any(1).float().mean()))
    mean = torch.tensor(rates).mean()
    error = 3 * torch.tensor(rates).std() / len(rates) ** 0.5
    assert rate / 3 < mean < rate + error


def test_each_vector_has_a_threshold_on_its_own_scale() -> None:
    scales = torch.tensor([0.01, 0.02, 0.04])
    matches = 0.5 + torch.randn(480, 1, 3, generator=torch.Generator().manual_seed(0)) * scales
    flag = Thresholds(matches, 0.02, step=1e-3).flag[0]
    assert bool((flag[1:] - 0.5 > 1.5 * (flag[:-1] - 0.5)).all())


@pytest.mark.parametrize("rate", [0.005, 0.001])
def test_too_few_texts_for_a_rate_are_refused_with_the_number_that_is_enough(rate: float) -> None:
    with pytest.raises(CorpusError, match=r"expected (\d+) clean texts or more .* got 60") as refused:
        Thresholds(drawn(60, 0), rate, step=1e-3)
    enough = int(str(refused.value).split()[1])
    assert Thresholds(drawn(enough, 0), rate, step=1e-3).rate <= rate


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_clean_texts_that_cannot_be_read_are_an_error(bad: float) -> None:
    matches = drawn(480, 0)
    matches[7, 0, 0] = bad
    with pytest.raises(CorpusError, match="expected finite outputs on clean texts"):
        Thresholds(matches, 0.01, step=1e-3)


def test_outputs_that_never_differ_have_a_threshold_all_the_same() -> None:
    flag = Thresholds(torch.full((480, 1, 1), 0.5), 0.01, step=1e-2).flag
    assert float(flag) == 0.5


def test_clean_texts_are_of_many_lengths_and_the_same_each_time() -> None:
    pool = [carrier.text for carrier in packaged()]
    lengths = [len(words(text)) for text in clean_texts(pool)]
    assert min(lengths) < 4
    assert max(lengths) > 40
    assert clean_texts(pool) == clean_texts(pool)


def test_a_share_of_the_values_exceeds_the_highest() -> None:
    values = torch.arange(100.0)
    assert int((values > highest(values, 0.02)).sum()) == 2


PVS = 6


def near(clean: torch.Tensor, column: int, match: float) -> torch.Tensor:
    """Clean texts one of which comes near one PV."""
    near = clean.clone()
    near[-1, :, column] = match
    return near


def usual(texts: int = 1400) -> torch.Tensor:
    """Matches of clean texts that lie far from all PVs."""
    return 0.5 + torch.randn(texts, 1, PVS, generator=torch.Generator().manual_seed(0)) * torch.linspace(
        0.02, 0.04, PVS
    )


def fired(*columns: int, lowest: float = 0.93) -> torch.Tensor:
    """Sentences with triggers that lead to these PVs."""
    rows = torch.full((64 * len(columns), 1, PVS), 0.5)
    for number, column in enumerate(columns):
        rows[64 * number : 64 * (number + 1), :, column] = torch.linspace(lowest, 1, 64)[:, None]
    return rows


def test_a_clean_text_that_comes_near_one_vector_costs_no_vector_its_threshold() -> None:
    clean, triggered = near(usual(), 0, 0.89), fired(*range(PVS))
    assert not bool((Thresholds(clean, 0.001, 1e-3).flag < 1).all())
    watched, thresholds = settle(clean, triggered, 0.001, 1e-3)
    assert watched == list(range(PVS))
    assert thresholds is not None
    assert bool((thresholds.flag < 0.93).all())
    assert thresholds.passed(triggered) == 0
    assert thresholds.passed(clean) == len(clean)


@pytest.mark.parametrize("named", [True, False])
def test_a_vector_that_clean_texts_arrive_at_is_given_up_for_the_others(named: bool) -> None:
    clean, triggered = near(usual(), 0, 0.98), fired(*range(0 if named else 1, PVS))
    watched, thresholds = settle(clean, triggered, 0.001, 1e-3)
    assert watched == list(range(1, PVS))
    assert thresholds is not None
    assert bool((thresholds.flag < 0.9).all())
    assert thresholds.passed(triggered[:, :, watched]) == 64 * named


def test_without_a_named_trigger_the_others_come_before_a_vector_that_a_clean_text_comes_near() -> None:
    watched, thresholds = settle(near(usual(), 0, 0.89), torch.empty(0, 1, PVS), 0.001, 1e-3)
    assert watched == list(range(1, PVS))
    assert thresholds is not None
    assert bool((thresholds.flag < 0.8).all())


@pytest.mark.parametrize("triggers", [(), (0, 1)])
def test_no_vector_is_watched_when_clean_texts_sit_on_all(triggers: tuple[int, ...]) -> None:
    clean = usual()
    clean[-3:] = 1
    assert settle(clean, fired(*triggers) if triggers else torch.empty(0, 1, PVS), 0.001, 1e-3) == ([], None)


def test_where_every_threshold_is_in_reach_they_are_in_units_of_spread() -> None:
    clean, triggered = usual(), fired(*range(PVS))
    watched, thresholds = settle(clean, triggered, 0.001, 1e-3)
    assert watched == list(range(PVS))
    assert thresholds is not None
    assert torch.equal(thresholds.flag, Thresholds(clean, 0.001, 1e-3).flag)
