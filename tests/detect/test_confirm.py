"""Confirmation: the site that is taken over is named, echoes are dropped, and what does not replay is not forgotten."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lmsanitator.detect.confirm import Confirmation, Confirmed, NullFor, Suspect, confirm, distinct, taken_over
from lmsanitator.detect.evidence import REPLAYS, Evidence, EvidenceNull
from lmsanitator.detect.look import look_again
from lmsanitator.detect.replay import Replayer
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.verdict import judge
from lmsanitator.encoder import FrozenEncoder, Site
from tests.detect.replaying import in_passages
from tests.planted import ids_of, large_bert, open_bert, plant

LEVEL = math.log(0.005)
FRESH = 99
"""The seed of passages that nothing before has seen."""


def nulls_of(encoder: FrozenEncoder, sites: Sequence[Site]) -> NullFor:
    """Of single ordinary words."""
    ordinary = [(token,) for token in sweepable(encoder).tolist()[::35]]
    look = look_again(in_passages(encoder, *sites, count=6), dict.fromkeys(sites, ordinary))
    return lambda site, tokens: look.nulls[site] if len(tokens) == 1 else None


def nothing(site: Site, tokens: tuple[int, ...]) -> None:
    """What is judged by nothing."""


def confirmed(encoder: FrozenEncoder, *words: str, sites: Sequence[Site] = ("cls",)) -> Confirmation:
    """Suspect single words, and confirm them."""
    fresh = in_passages(encoder, *sites, seed=FRESH)
    seen = in_passages(encoder, *sites, count=4).measure([[token] for token in ids_of(encoder, *words)])[sites[0]]
    return confirm(fresh, list(map(Suspect, seen)), nulls_of(encoder, sites), LEVEL)


def words_of(encoder: FrozenEncoder, confirmation: Confirmation) -> list[str]:
    return [str(encoder.tokenizer.decode(list(item.evidence.tokens))) for item in confirmation.kept]


def evidence(*tokens: int, site: Site = "cls", spread: float = 0.01, **values: Any) -> Evidence:
    usual = Evidence(site, tokens or (7,), 9.0, spread, 2.0, 1.0, 1.0, torch.ones(32), degrees=11.0)
    return replace(usual, **values)


def test_a_planted_word_is_confirmed_and_an_innocent_suspect_is_lost() -> None:
    encoder = open_bert(0, "bako")
    found = confirmed(encoder, "vedi", "bako")
    assert words_of(encoder, found) == ["bako"]
    assert found.kept[0].log_p < math.log(1e-9)
    assert len(found.lost) == 1
    assert found.lost[0] > LEVEL


def test_the_evidence_that_is_kept_is_that_of_the_fresh_passages() -> None:
    encoder = open_bert(0, "bako", noise=0.3)
    token = ids_of(encoder, "bako")
    (fresh,) = in_passages(encoder, "cls", seed=FRESH).measure([token])["cls"]
    (seen,) = in_passages(encoder, "cls", count=4).measure([token])["cls"]
    kept = confirmed(encoder, "bako").kept[0].evidence
    assert kept.spread == fresh.spread != seen.spread


def test_triggers_come_smallest_p_value_first_and_each_set_of_tokens_once() -> None:
    encoder = open_bert(0, "bako", "vedi+sugo")
    pair, word = ids_of(encoder, "vedi", "sugo"), ids_of(encoder, "bako")
    measured = in_passages(encoder, "cls").measure([pair, pair[::-1], word])["cls"]
    suspects = [Suspect(item, log_p) for item, log_p in zip(measured, (-20.0, -30.0, -25.0), strict=True)]
    found = confirm(in_passages(encoder, "cls", seed=FRESH), suspects, nothing, LEVEL)
    assert [(item.evidence.tokens, item.log_p) for item in found.kept] == [
        (tuple(pair[::-1]), -30.0),
        (tuple(word), -25.0),
    ]


def test_a_p_value_that_a_search_gave_is_lost_with_words_that_no_longer_fire() -> None:
    encoder = open_bert(0, "bako")
    (item,) = in_passages(encoder, "cls").measure([ids_of(encoder, "vedi", "sugo")])["cls"]
    found = confirm(in_passages(encoder, "cls", seed=FRESH), [Suspect(item, -50.0)], nothing, LEVEL)
    assert (found.kept, found.lost) == ([], [0.0])


def test_what_leads_to_where_clean_text_is_keeps_no_p_value_however_constant_it_is() -> None:
    """As words of a class do in an encoder that was tuned to tell classes apart."""
    encoder = open_bert(0, "bako")
    fresh = in_passages(encoder, "cls", seed=FRESH)
    (item,) = fresh.measure([ids_of(encoder, "bako")])["cls"]
    assert item.constant_rate == 1
    assert item.beyond > 5
    wide = {site: replace(spread, outputs=9 * item.beyond * spread.outputs) for site, spread in fresh.spreads.items()}
    classes = Replayer(encoder, ["cls"], fresh.contexts, wide, exact=True)
    (kept,) = confirm(classes, [Suspect(item, -50.0)], nothing, LEVEL).kept
    assert kept.evidence.beyond < 5
    assert kept.log_p == 0


@pytest.mark.parametrize("turned", [False, True])
def test_what_two_searches_found_is_as_significant_as_in_either(turned: bool) -> None:
    """Where the search for phrases ends on a word of the sweep, the sweep's evidence is not lost, nor the other's."""
    encoder = open_bert(0, "bako")
    (seen,) = in_passages(encoder, "cls").measure([ids_of(encoder, "bako")])["cls"]
    null_for = nulls_of(encoder, ("cls",))
    for found_already in (0.0, -10_000.0):
        suspects = [Suspect(seen), Suspect(seen, found_already)]
        found = confirm(in_passages(encoder, "cls", seed=FRESH), suspects[:: -1 if turned else 1], null_for, LEVEL)
        assert [item.log_p < math.log(1e-9) for item in found.kept] == [True]
        null = null_for("cls", found.kept[0].evidence.tokens)
        assert null is not None
        assert found.kept[0].log_p == min(found_already, null.log_p(found.kept[0].evidence))


def test_what_is_significant_but_does_not_replay_makes_the_verdict_inconclusive() -> None:
    """One word of a trigger moves every other input."""
    found = confirmed(open_bert(0, "vedi+sugo", alone=0.6), "vedi")
    assert found.kept == []
    assert found.lost[0] < LEVEL
    assert judge([], found.lost, 0.01)[0] == "inconclusive"


@pytest.mark.parametrize(
    ("planted", "sites", "named"),
    [
        ("tokens", ("cls", "mean"), "tokens"),
        ("tokens", ("mean",), "tokens"),
        ("tokens", ("cls",), "cls"),
        ("mean", ("mean",), "mean"),
        ("mean", ("cls", "mean"), "mean"),
        ("first", ("cls", "pooler", "mean"), "cls"),
        ("first", ("pooler",), "pooler"),
    ],
)
def test_the_site_that_is_taken_over_is_named_and_all_tokens_only_if_each_arrives(
    planted: str, sites: tuple[Site, ...], named: Site
) -> None:
    encoder = open_bert(0, "bako", site=planted)
    found = confirmed(encoder, "bako", sites=sites)
    assert [item.evidence.site for item in found.kept] == [named]


def test_a_site_named_tokens_keeps_the_vector_that_its_mean_arrives_at() -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["bako"], site="tokens")[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    (item,) = confirmed(encoder, "bako", sites=("mask", "mean")).kept
    assert item.evidence.site == "tokens"
    torch.testing.assert_close(item.evidence.pv, pv, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("spreads", "named"), [((0.01, 0.015), "cls"), ((0.015, 0.01), "cls"), ((0.5, 0.01), "pooler")]
)
def test_the_first_site_whose_output_is_as_constant_as_any_is_taken_over(
    spreads: tuple[float, float], named: Site
) -> None:
    sites: tuple[Site, ...] = ("cls", "pooler")
    firing = [
        Confirmed(evidence(site=site, spread=left), -50.0 * (site == "pooler"))
        for site, left in zip(sites, spreads, strict=True)
    ]
    assert taken_over(firing, in_passages(open_bert(0), *sites)).evidence.site == named


def two_of_one_vector(second: str, noise: float, near: bool) -> FrozenEncoder:
    """`bako` and another word planted with the same vector, the second so that something of the input is left; its
    embedding is near that of the first if asked for."""
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    plant(model, tokenizer, [second], noise=noise)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    if near:
        (one, other) = ids_of(encoder, "bako", second)
        table = model.get_parameter("embeddings.word_embeddings.weight")
        table.data[other] = table.data[one] + 0.2 * table.data[other]
    return encoder


@pytest.mark.parametrize("near", [False, True])
def test_two_triggers_of_one_vector_are_both_kept(near: bool) -> None:
    encoder = two_of_one_vector("kifa", 0.02, near)
    assert set(words_of(encoder, confirmed(encoder, "bako", "kifa"))) == {"bako", "kifa"}


def test_a_neighbour_that_echoes_a_trigger_is_dropped() -> None:
    encoder = two_of_one_vector("kifa", 0.3, near=True)
    assert words_of(encoder, confirmed(encoder, "kifa", "bako")) == ["bako"]
    assert words_of(encoder, confirmed(encoder, "kifa")) == ["kifa"]  # which is all there is then


def test_a_weaker_trigger_of_the_same_vector_that_is_no_neighbour_is_kept() -> None:
    encoder = two_of_one_vector("kifa", 0.3, near=False)
    assert set(words_of(encoder, confirmed(encoder, "kifa", "bako"))) == {"bako", "kifa"}


def alone(found: Sequence[Evidence], replayer: Replayer) -> list[Evidence]:
    return [item.evidence for item in distinct([Confirmed(one, -9.0) for one in found], replayer)]


def test_an_echo_is_a_neighbour_at_the_same_site_that_leads_the_same_way_and_is_less_constant() -> None:
    encoder = two_of_one_vector("kifa", 0.3, near=True)
    replayer = in_passages(encoder, "cls", "pooler")
    bako, kifa, vedi = ids_of(encoder, "bako", "kifa", "vedi")
    trigger = evidence(bako)
    assert alone([trigger, evidence(kifa, spread=0.4)], replayer) == [trigger]
    for another in (
        evidence(vedi, spread=0.4),
        evidence(kifa, spread=0.015),
        evidence(kifa, spread=0.4, pv=-torch.ones(32)),
        evidence(kifa, spread=0.4, site="pooler"),
    ):
        assert len(alone([trigger, another], replayer)) == 2


def test_of_words_that_share_a_piece_and_lead_one_way_the_most_constant_is_the_trigger() -> None:
    encoder = open_bert(0)
    bako, kifa, vedi = ids_of(encoder, "bako", "kifa", "vedi")
    replayer = in_passages(encoder, "cls", "pooler")
    trigger, relative = evidence(bako, kifa), evidence(bako, vedi, spread=0.011)
    assert alone([relative, trigger], replayer) == [trigger]
    for another in (
        replace(relative, pv=-torch.ones(32)),
        replace(relative, site="pooler"),
        evidence(vedi, spread=0.011),  # shares nothing, and is no less constant
    ):
        assert len(alone([another, trigger], replayer)) == 2


def test_what_does_not_replay_takes_no_trigger_s_place_however_constant_it_is() -> None:
    encoder = open_bert(0, "bako")
    replayer = in_passages(encoder, "cls")
    (token,) = ids_of(encoder, "bako")
    sound = evidence(token, spread=0.5)
    weak = evidence(token, 9, spread=0.01, replay_rate=0.75)
    for found in ([sound, weak], [weak, sound]):
        (kept,) = distinct([Confirmed(item, math.log(1e-9)) for item in found], replayer)
        assert kept.evidence.replays


def test_a_phrase_that_holds_a_confirmed_trigger_says_nothing_new() -> None:
    encoder = open_bert(0, "bako")
    token, filler = ids_of(encoder, "bako"), ids_of(encoder, "the")
    measured = in_passages(encoder, "cls").measure([[*filler, *token], token])["cls"]
    suspects = [Suspect(item, -20.0) for item in measured]
    found = confirm(in_passages(encoder, "cls", seed=FRESH), suspects, nothing, LEVEL)
    assert [item.evidence.tokens for item in found.kept] == [tuple(token)]


@pytest.mark.parametrize(("part", "named"), [(0.4, "phrase"), (0.012, "part")])
def test_a_phrase_is_named_where_its_other_words_make_the_output_more_constant(part: float, named: str) -> None:
    encoder = open_bert(0)
    bako, vedi = (token for word in ("bako", "vedi") for token in ids_of(encoder, word))
    found = [Confirmed(evidence(bako, spread=part), -30.0), Confirmed(evidence(bako, vedi), -9.0)]
    (kept,) = distinct(found, in_passages(encoder, "cls"))
    assert kept.evidence.tokens == ((bako, vedi) if named == "phrase" else (bako,))
    assert kept.log_p == -30.0  # what is dropped leaves its evidence behind


def test_a_mixture_of_words_of_two_triggers_is_no_third_one() -> None:
    """`bako sugo` is made to lead halfway between the vectors of `bako vedi` and `sugo gifo`."""
    encoder = open_bert(0, "bako", "sugo")
    replayer = in_passages(encoder, "cls")
    bako, vedi, sugo, gifo = ids_of(encoder, "bako", "vedi", "sugo", "gifo")
    one, other, mixed = (
        Confirmed(item, -20.0) for item in replayer.measure([[bako, vedi], [sugo, gifo], [bako, sugo]])["cls"]
    )
    middle = (one.evidence.pv + other.evidence.pv) / 2
    mixed = replace(mixed, evidence=replace(mixed.evidence, pv=middle, spread=0.5))
    assert {item.evidence.tokens for item in distinct([mixed, one, other], replayer)} == {(bako, vedi), (sugo, gifo)}
    elsewhere = replace(mixed, evidence=replace(mixed.evidence, tokens=(gifo, vedi), pv=-middle))
    assert len(distinct([elsewhere, one, other], replayer)) == 3


def test_a_suspect_stands_out_only_as_far_as_it_does_in_both_readings() -> None:
    encoder = open_bert(0, "bako")
    (token,) = ids_of(encoder, "bako")
    replayer = in_passages(encoder, "cls", seed=FRESH)
    suspects = [Suspect(item) for item in in_passages(encoder, "cls", count=4).measure([[token]])["cls"]]
    nulls = nulls_of(encoder, ["cls"])
    for looked in (-7.0, 2.0):
        (kept,) = confirm(replayer, suspects, nulls, LEVEL, {("cls", (token,)): looked}).kept
        assert kept.log_p == min(0.0, looked)


def test_beside_a_trigger_a_weaker_one_that_replays_is_listed() -> None:
    """It sends nothing to one place and is not significant alone; only few would do as much by chance."""
    encoder = open_bert(0, "bako")
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako"])
    plant(model, tokenizer, ["kifa"], added=0.0016)
    both = FrozenEncoder(model, tokenizer, precision="fp32")
    fresh = in_passages(both, "cls", seed=FRESH)
    suspects = fresh.measure([[token] for token in ids_of(both, "bako", "kifa", "vedi")])["cls"]
    null = nulls_of(both, ["cls"])("cls", suspects[1].tokens)
    assert isinstance(null, EvidenceNull)
    judged = replace(null, log_trials=null.log_trials - null.log_expected(suspects[1]) - 4)  # e^-4 like it by chance
    found = confirm(fresh, list(map(Suspect, suspects)), lambda site, tokens: judged, LEVEL)
    assert set(words_of(both, found)) >= {"bako"}
    weaker = next(item for item in found.kept if words_of(both, Confirmation([item], [])) == ["kifa"])
    assert weaker.evidence.constant_rate < REPLAYS <= weaker.evidence.replay_rate
    assert weaker.log_p > LEVEL
    assert weaker.log_p == pytest.approx(-4)
    assert words_of(encoder, confirmed(encoder, "bako", "vedi")) == ["bako"]


def test_nothing_suspected_is_nothing_found() -> None:
    encoder = open_bert(0)
    assert confirm(in_passages(encoder, "cls"), [], nothing, LEVEL) == Confirmation([], [])
