"""What a scan looks at, by what the encoder has and what is asked for."""

import pytest

from lmsanitator.detect.config import PLANS, sites_to_mine, sites_to_scan
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError


def test_auto_takes_every_place_that_attacks_strike(bert: FrozenEncoder, gpt2: FrozenEncoder) -> None:
    assert sites_to_scan(bert, "auto") == ("cls", "pooler", "mask", "mean")
    assert sites_to_scan(gpt2, "auto") == ("last", "mean")


@pytest.mark.parametrize(
    ("wanted", "scanned"),
    [
        (("cls",), ("cls",)),
        (("tokens",), ("mean",)),
        (("tokens", "cls", "mean"), ("mean", "cls")),
        (("mask", "cls", "mask"), ("mask", "cls")),
    ],
)
def test_what_is_asked_for_is_scanned_in_that_order_all_tokens_through_their_mean(
    wanted: tuple[Site, ...], scanned: tuple[Site, ...], bert: FrozenEncoder
) -> None:
    assert sites_to_scan(bert, wanted) == scanned


def test_a_site_the_encoder_lacks_is_unsupported(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match=r"^expected a site of GPT2Model: .*; got cls$"):
        sites_to_scan(gpt2, ("last", "cls"))


@pytest.mark.parametrize(
    ("scanned", "mined"),
    [
        (("cls", "pooler", "mask", "mean"), ("cls", "mask", "mean")),
        (("pooler",), ("pooler",)),
        (("pooler", "mask"), ("pooler", "mask")),
        (("last", "mean"), ("last", "mean")),
    ],
)
def test_the_pooler_is_mined_only_where_cls_is_not(scanned: tuple[Site, ...], mined: tuple[Site, ...]) -> None:
    assert sites_to_mine(scanned) == mined


def test_more_effort_buys_more() -> None:
    quick, standard, deep = (PLANS[effort] for effort in ("quick", "standard", "deep"))
    assert quick.rounds == 0 < standard.rounds < deep.rounds
    assert quick.sweep == standard.sweep
    assert standard.dictionary.rounds < deep.dictionary.rounds
    assert standard.toward.pairs.anchors < deep.toward.pairs.anchors
    assert standard.mining.candidates < deep.mining.candidates
    assert deep.always_mine
    assert not standard.always_mine
