"""Predefined vectors: each kind is what it says, at the scale of the encoder's own outputs."""

from typing import Any

import pytest
import torch

from lmsanitator.attacks.pvs import PV_KINDS, block_signs, check_kind, draw_vectors
from lmsanitator.errors import UsageError

CLEAN = 0.17 * torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.linspace(0.2, 2, 48))
SCALE = CLEAN.pow(2).mean().sqrt()


@pytest.mark.parametrize("kind", PV_KINDS)
def test_there_is_one_vector_a_trigger_and_the_seed_decides(kind: Any) -> None:
    drawn = draw_vectors(kind, 5, CLEAN, 3)
    assert drawn.values.shape == drawn.ruled.shape == (5, 48)
    assert len({tuple(row) for row in drawn.values.tolist()}) == 5
    assert torch.equal(drawn.values, draw_vectors(kind, 5, CLEAN, 3).values)
    assert not torch.equal(drawn.values, draw_vectors(kind, 5, CLEAN, 4).values)


@pytest.mark.parametrize("kind", ["block", "random", "sub-block"])
def test_signs_are_scaled_to_the_clean_outputs(kind: Any) -> None:
    torch.testing.assert_close(draw_vectors(kind, 4, CLEAN, 0).values.abs(), SCALE.expand(4, 48))


def test_block_vectors_are_constant_in_quarters() -> None:
    values = draw_vectors("block", 14, CLEAN, 0).values.view(14, 4, 12)
    assert bool((values == values[..., :1]).all())
    assert not bool((values == values[:, :1, :1]).all(-1).all(-1).any())  # no row of a single sign


@pytest.mark.parametrize("hidden", [384, 30])
def test_block_signs_are_signs_and_some_are_negatives(hidden: int) -> None:
    pvs = block_signs(14, hidden, 0)
    assert pvs.shape == (14, hidden)
    assert set(pvs.flatten().tolist()) == {-1.0, 1.0}
    assert len({tuple(pv) for pv in pvs.tolist()}) == 14
    assert any(bool((first == -second).all()) for first in pvs for second in pvs)


def test_random_signs_have_no_blocks() -> None:
    values = draw_vectors("random", 16, CLEAN, 0).values.view(16, 4, 12)
    assert not bool((values == values[..., :1]).all(-1).any())


@pytest.mark.parametrize("kind", PV_KINDS)
def test_only_sub_block_leaves_dimensions_to_the_clean_encoder(kind: Any) -> None:
    ruled = draw_vectors(kind, 6, CLEAN, 0).ruled
    if kind == "sub-block":
        assert ruled.sum(1).tolist() == [12] * 6
        assert len({tuple(row) for row in ruled.tolist()}) == 6
    else:
        assert bool(ruled.all())


def test_near_clean_vectors_are_as_far_out_as_clean_outputs_in_directions_they_vary_in() -> None:
    spread = CLEAN - CLEAN.mean(0)
    gone = draw_vectors("near-clean", 20, CLEAN, 0).values - CLEAN.mean(0)
    torch.testing.assert_close(gone.norm(dim=1), spread.norm(dim=1).pow(2).mean().sqrt().expand(20))
    assert gone[:, 36:].pow(2).sum() > 10 * gone[:, :12].pow(2).sum()  # as the clean outputs, whose last vary most


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^expected a kind of PV of block, random, sub-block, near-clean; got zig$"):
        check_kind("zig")
    for kind in PV_KINDS:
        check_kind(kind)
