"""Reading a site from a forward pass."""

import pytest
import torch
from jaxtyping import TypeCheckError

from lmsanitator.encoder import SITES, Site, one_vector, read_site

HIDDEN = torch.arange(24.0).view(2, 3, 4)
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


def test_mean_and_last_leave_padding_out() -> None:
    assert torch.equal(read_site("mean", HIDDEN, None, MASK), torch.stack([HIDDEN[0].mean(0), HIDDEN[1, 0]]))
    assert torch.equal(read_site("last", HIDDEN, None, MASK), torch.stack([HIDDEN[0, 2], HIDDEN[1, 0]]))


def test_a_row_of_padding_alone_does_not_divide_by_zero() -> None:
    assert bool(torch.isfinite(read_site("mean", HIDDEN, None, torch.zeros_like(MASK))).all())


@pytest.mark.parametrize("site", ["cls", "mean", "last", "mask", "tokens"])
def test_outputs_elsewhere_are_read_with_a_mask_that_stayed_behind(site: Site) -> None:
    """As on a GPU; `meta` is a device that every machine has."""
    there = torch.empty(2, 3, 4, device="meta")
    assert read_site(site, there, None, MASK, torch.tensor([1, 0])).device.type == "meta"


def test_every_site_has_one_vector_an_input_that_stands_for_it() -> None:
    stands_for = {site: one_vector(site) for site in SITES}
    assert stands_for.pop("tokens") == "mean"
    assert all(site == itself for site, itself in stands_for.items())


def test_the_mask_site_needs_to_know_where_the_mask_is() -> None:
    with pytest.raises(ValueError, match="needs the index of the mask token"):
        read_site("mask", HIDDEN, None, MASK)


def test_the_pooler_site_needs_a_pooler() -> None:
    with pytest.raises(ValueError, match="needs a pooler output"):
        read_site("pooler", HIDDEN, None, MASK)


def test_shapes_written_in_signatures_are_checked_by_these_tests() -> None:
    with pytest.raises(TypeCheckError):
        read_site("mean", HIDDEN, None, MASK[:, :2])
