"""Thresholds from clean text: the false-flag rate that was asked for is kept on texts of the same kind."""

import pytest
import torch

from lmsanitator.errors import CorpusError
from lmsanitator.guard import Thresholds
from lmsanitator.guard.thresholds import clean_texts, highest
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
