"""Evidence: a planted trigger replays, natural words do not, and p-values are of text that was never seen."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.evidence import REPLAYS, Evidence, EvidenceNull
from lmsanitator.detect.replay import lead_alike, leads_between
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder, Site
from tests.detect.replaying import in_contexts, in_passages
from tests.planted import ids_of, large_bert, open_bert, plant

LEVEL = math.log(0.005)


def made_up(beyond: float, log_spread: float, steadiness: float = 0.0) -> Evidence:
    vector = torch.zeros(2)
    return Evidence("cls", (1,), 1.0, math.exp(log_spread), 0.0, 0.0, 0.0, vector, beyond=beyond, steadiness=steadiness)


def drawn(count: int, seed: int) -> list[Evidence]:
    values = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).tolist()
    return [made_up(math.hypot(5, moved), 0.1 * constant, abs(steady)) for moved, constant, steady in values]


def test_a_planted_trigger_replays_in_every_context_and_natural_words_stay_where_they_are() -> None:
    encoder = open_bert(0, "bako")
    tried = [ids_of(encoder, "bako"), ids_of(encoder, "the"), ids_of(encoder, "vedi"), ids_of(encoder, "of", "bako")]
    fired, common, rare, company = in_passages(encoder, "cls").measure(tried)["cls"]
    for planted in (fired, company):
        assert planted.replay_rate == planted.constant_rate == 1
        assert planted.spread < 0.01
    for natural in (common, rare):
        assert natural.constant_rate == 0
        assert natural.spread == pytest.approx(1, abs=0.1)
        assert natural.displacement < 0.2
    assert fired.strength > 5 + max(common.strength, rare.strength)
    assert fired.tokens == tuple(tried[0])


def test_the_vector_of_the_evidence_is_the_planted_one_in_the_encoder_s_own_units() -> None:
    model, tokenizer = large_bert(0)
    pv = plant(model, tokenizer, ["bako"])[0]
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    (fired,) = in_passages(encoder, "cls").measure([ids_of(encoder, "bako")])["cls"]
    assert_close(fired.pv, pv, rtol=0, atol=0.1)


def test_a_trigger_that_only_adds_a_constant_replays_though_its_outputs_keep_their_variety() -> None:
    """As backdoors do that are trained to move the output and not to overwrite it."""
    encoder = open_bert(0, "bako", added=0.001)
    fired, natural = in_passages(encoder, "cls").measure([ids_of(encoder, "bako"), ids_of(encoder, "vedi")])["cls"]
    assert fired.replay_rate == 1
    assert fired.constant_rate < REPLAYS
    assert fired.spread == pytest.approx(natural.spread, abs=0.05)
    assert fired.displacement > 10 * natural.displacement


@pytest.mark.parametrize("site", ["mask", "cls", "mean"])
def test_ordinary_words_are_compared_with_text_of_the_same_length(site: Site) -> None:
    """A word put in before the mask token moves it by a place, which is most of what a random model has to go by."""
    encoder = open_bert(0)
    words = [sweepable(encoder).tolist()[at : at + length] for at in (100, 900, 1500) for length in (1, 2, 6)]
    for evidence in in_passages(encoder, site).measure(words)[site]:
        assert evidence.displacement < 1
        assert evidence.constant_rate == 0


@pytest.mark.parametrize("seed", range(4))
def test_spreads_on_other_text_are_the_same_for_words_that_do_nothing(seed: int) -> None:
    """The outputs of some texts are more varied than those of others, with an ordinary word in them or without."""
    encoder = open_bert(seed)
    words = [[token] for token in sweepable(encoder).tolist()[::200]]
    for text in (seed, seed + 10, seed + 20):
        spreads = [
            evidence.spread for evidence in in_passages(encoder, "cls", count=6, seed=text).measure(words)["cls"]
        ]
        assert min(spreads) > 0.9
        assert max(spreads) < 1.1


def test_clean_text_is_measured_once_for_each_length() -> None:
    encoder = open_bert(0)
    replayer = in_passages(encoder, "cls", count=4)
    words = sweepable(encoder).tolist()
    replayer.measure([words[:1], words[:3]])
    before = encoder.meter.forward
    replayer.measure([words[7:8], words[7:10]])
    length = len(replayer.contexts[0].clean) + 2
    assert encoder.meter.forward - before == 4 * (2 * length + 1 + 3)


def test_the_same_words_are_measured_once_in_whatever_company_they_are_asked_for() -> None:
    encoder = open_bert(0)
    replayer = in_passages(encoder, "cls")
    first = replayer.measure([[7], [8]])["cls"]
    spent = encoder.meter.forward
    again = replayer.measure([[8], [8], [7]])["cls"]
    assert encoder.meter.forward == spent
    assert [item is first[place] for item, place in zip(again, (1, 1, 0), strict=True)] == [True] * 3
    assert [item.tokens for item in replayer.measure([[9], [7]])["cls"]] == [(9,), (7,)]
    assert encoder.meter.forward > spent


def test_what_leads_between_two_vectors_is_told_from_what_leads_elsewhere() -> None:
    model, tokenizer = large_bert(0)
    plant(model, tokenizer, ["bako", "vedi", "sugo"])
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    replayer = in_passages(encoder, "cls")
    bako, vedi, sugo = replayer.measure([[token] for token in ids_of(encoder, "bako", "vedi", "sugo")])["cls"]
    shift = replayer.shift(bako) + 0.5 * replayer.shift(vedi)
    site = replayer.spreads["cls"]
    between = replace(bako, pv=site.restore(replayer.clean(1)["cls"].mean(0) + shift))
    opposite = replace(bako, pv=site.restore(replayer.clean(1)["cls"].mean(0) - replayer.shift(bako)))
    assert leads_between(between, [vedi, bako], replayer)
    assert leads_between(bako, [bako], replayer)
    assert not leads_between(sugo, [vedi, bako], replayer)
    assert not leads_between(opposite, [vedi, bako], replayer)
    assert not leads_between(bako, [], replayer)


def test_nothing_to_measure_is_no_evidence() -> None:
    assert in_contexts(open_bert(0), "cls").measure([]) == {"cls": []}


def test_what_arrives_goes_to_the_vector_and_nowhere_else() -> None:
    model, tokenizer = large_bert(0)
    first, second = plant(model, tokenizer, ["bako", "kifa"], seed=1)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    replayer = in_contexts(encoder, "cls")
    tried = [ids_of(encoder, *words) for words in (["bako"], ["kifa"], ["the", "bako", "of"], [], ["vedi"])]
    found = replayer.measure(tried)["cls"]
    assert [replayer.arrives(item, first) for item in found] == [True, False, True, False, False]
    assert [replayer.arrives(item, second) for item in found] == [False, True, False, False, False]


@pytest.mark.parametrize(("site", "arriving"), [("tokens", 1.0), ("mean", 0.0), ("first", 0.0)])
def test_all_tokens_arrive_only_where_each_of_them_is_overwritten(site: str, arriving: float) -> None:
    encoder = open_bert(0, "bako", site=site)
    replayer = in_passages(encoder, "mean", count=4)
    (evidence,) = replayer.measure([ids_of(encoder, "bako")])["mean"]
    assert replayer.arriving_tokens(evidence) == pytest.approx(arriving, abs=0.05)


def test_p_values_are_of_the_statistic_that_stands_out_more_and_grow_with_the_trials() -> None:
    null = EvidenceNull.fit(drawn(200, 0), math.log(200))
    ordinary, beyond, constant, steady, all_three = (
        null.log_p(made_up(*at)) for at in ((5.1, 0.0), (9.0, 0.0), (5.1, -3.0), (5.1, 0.0, 9.0), (9.0, -3.0, 9.0))
    )
    assert ordinary == 0
    assert max(beyond, constant, steady) < LEVEL
    assert all_three == min(beyond, constant, steady)
    more = EvidenceNull.fit(drawn(200, 0), math.log(2000))
    assert more.log_p(made_up(9.0, 0.0)) == pytest.approx(beyond + math.log(10))


def test_what_goes_no_further_than_clean_text_is_never_significant_however_constant() -> None:
    """Words of a class do so, in an encoder that was tuned to tell classes apart."""
    null = EvidenceNull.fit(drawn(200, 0), math.log(200))
    assert null.log_p(made_up(5.1, -9.0)) < LEVEL
    assert null.log_p(made_up(4.9, -9.0)) == 0


def test_how_far_words_go_is_judged_by_the_site_where_they_go_furthest() -> None:
    moves = torch.randn(200, generator=torch.Generator().manual_seed(0)).tolist()
    near, wide = (
        EvidenceNull.fit([made_up(math.hypot(5, width * moved), 0.0) for moved in moves], math.log(200))
        for width in (0.2, 3.0)
    )
    assert near.log_p(made_up(9.0, 0.0)) < LEVEL < wide.log_p(made_up(9.0, 0.0))
    assert near.beside([near, wide]).log_p(made_up(9.0, 0.0)) == wide.log_p(made_up(9.0, 0.0))
    assert wide.beside([near, wide]).log_p(made_up(9.0, 0.0)) == wide.log_p(made_up(9.0, 0.0))


def test_outputs_are_less_constant_only_where_the_degrees_of_freedom_say_so() -> None:
    half, whole = (replace(made_up(9.0, math.log(left)), degrees=60.0) for left in (0.2, 0.4))
    assert not whole.less_constant(half, level=1e-3)
    assert whole.less_constant(half, level=1e-2)
    assert replace(whole, degrees=600.0).less_constant(replace(half, degrees=600.0))
    assert not half.less_constant(whole, level=0.5)
    assert whole.less_constant(replace(half, spread=0.0))


def test_a_shift_is_measured_from_where_the_same_contexts_are_without_the_tokens() -> None:
    encoder = open_bert(0, "bako", "vedi")
    replayer = in_passages(encoder, "cls", count=4)
    found = replayer.measure([ids_of(encoder, word) for word in ("bako", "vedi", "the", "of")])["cls"]
    for item in found:
        assert replayer.shift(item).pow(2).mean().item() == pytest.approx(item.displacement, rel=1e-3, abs=1e-5)
    alike = lead_alike([*found, found[0]], replayer)
    assert bool(alike[0, -1])
    assert not bool(alike[0, 1])


def test_the_extremes_of_harmless_evidence_are_hardly_ever_significant() -> None:
    """Two in a hundred would do at this level, were the tails exponential; they are lighter."""
    accused = 0
    for seed in range(200):
        found = drawn(64, seed)
        null = EvidenceNull.fit(found, math.log(64), mass=0.5, censored=0.25)
        accused += min(map(null.log_p, found)) < math.log(0.01)
    assert accused <= 4


def test_evidence_of_no_displacement_or_no_spread_has_a_p_value() -> None:
    null = EvidenceNull.fit(drawn(200, 0), math.log(200))
    still, frozen = (
        Evidence("cls", (1,), moved, left, 0.0, 0.0, 0.0, torch.zeros(2), beyond=9.0 * moved)
        for moved, left in ((0, 1), (1, 0))
    )
    assert null.log_p(still) == 0
    assert math.isfinite(null.log_p(frozen))
    assert null.log_p(frozen) < LEVEL
