"""The second look: a planted word stands out even among outliers, natural outliers do not."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from lmsanitator.detect.evidence import STATISTICS, Evidence, EvidenceNull, Null, harmless
from lmsanitator.detect.lexicon import null_of_words
from lmsanitator.detect.look import Look, look_again, null_of
from lmsanitator.detect.null import TailNull
from lmsanitator.detect.sweep import SweepConfig, sweep, sweepable
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError
from tests.detect.replaying import in_passages
from tests.planted import ids_of, made_up_words, open_bert

LEVEL = math.log(0.005)
SITES: tuple[Site, ...] = ("cls", "pooler", "mask", "mean")


def each(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Single tokens as words."""
    return [(token,) for token in tokens]


def looked(encoder: FrozenEncoder, sites: Sequence[Site] = ("cls",), seed: int = 0) -> Look:
    """Sweep and second look."""
    swept = sweep(encoder, sites, SweepConfig(), seed=seed)
    shortlists = {site: each(result.shortlist.tolist()) for site, result in swept.items()}
    return look_again(in_passages(encoder, *sites, count=6), shortlists)


def significant(encoder: FrozenEncoder, look: Look, site: Site) -> list[str]:
    found = [item.tokens[0] for item in look.seen[site] if look.nulls[site].log_p(item) < LEVEL]
    return list(map(str, encoder.tokenizer.convert_ids_to_tokens(sorted(found))))


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_word_has_a_tiny_p_value_and_no_natural_outlier_is_significant(seed: int) -> None:
    encoder = open_bert(seed, "bako")
    look = looked(encoder)
    assert significant(encoder, look, "cls") == ["bako"]
    assert min(map(look.nulls["cls"].log_p, look.seen["cls"])) < math.log(1e-9)


def test_several_planted_words_are_all_significant() -> None:
    encoder = open_bert(0, "bako", "vedi", "sugo", "kifa", "gifo")
    assert set(significant(encoder, looked(encoder), "cls")) == {"bako", "vedi", "sugo", "kifa", "gifo"}


@pytest.mark.parametrize("seed", range(6))
def test_a_shortlist_without_a_trigger_accuses_nobody(seed: int) -> None:
    encoder = open_bert(seed)
    look = looked(encoder, SITES, seed)
    for site in SITES:
        assert significant(encoder, look, site) == [], site


def test_a_word_that_adds_the_same_to_every_text_stands_out_by_that_and_not_by_constancy() -> None:
    encoder = open_bert(0, "bako", added=0.005)
    look = looked(encoder)
    null = look.nulls["cls"]
    assert isinstance(null, EvidenceNull)
    (item,) = (item for item in look.seen["cls"] if [*item.tokens] == ids_of(encoder, "bako"))
    log_p = {
        name: null.tails[name].log_p(torch.tensor(statistic(item)), null.log_trials).item()
        for name, statistic in STATISTICS.items()
    }
    assert log_p["steady"] < LEVEL < log_p["constant"]
    assert item.steadiness > 100 * max(other.steadiness for other in look.seen["cls"] if other is not item)


def test_how_far_words_go_is_judged_alike_at_all_sites() -> None:
    nulls = looked(open_bert(0), SITES).nulls
    judges = [null for null in nulls.values() if isinstance(null, EvidenceNull)]
    for value in (0.5, 5.0, 50.0, 500.0):
        for statistic in ("beyond", "steady"):
            own = [null.tails[statistic].log_expected(torch.tensor(value), 0.0).item() for null in judges]
            judged = [null._log_expected(statistic, value) - null._trials(statistic) for null in judges]
            assert judged == pytest.approx([max(own)] * len(judges))
    assert len({null.tails["constant"] for null in judges}) == len(judges) == len(SITES)


def test_another_site_makes_nothing_more_surprising_than_it_is_at_its_own() -> None:
    """Where words go far as a rule, a little further is nothing, however narrow the tail."""
    usual = TailNull(0.0, 1.0, 0.5, 28)
    far, wide = (
        EvidenceNull({"beyond": beyond, "steady": usual, "constant": usual}, math.log(300))
        for beyond in (TailNull(400.0, 30.0, 0.5, 28), TailNull(40.0, 31.0, 0.5, 28))
    )
    item = Evidence("cls", (7,), 9.0, 1.0, 2.0, 1.0, 1.0, torch.ones(32), beyond=math.sqrt(430.0))
    assert far.beside([far, wide]).log_expected(item) == wide.beside([far, wide]).log_expected(item)
    assert wide.log_expected(item) < far.log_expected(item) == far.beside([far, wide]).log_expected(item)


@pytest.mark.parametrize(("triggers", "others", "found"), [(12, 48, 12), (40, 60, 40), (30, 30, 0)])
def test_triggers_are_no_null_for_triggers_unless_hardly_any_word_is_none(
    triggers: int, others: int, found: int
) -> None:
    """Then the test loses power, and accuses nobody."""
    planted = made_up_words(triggers)
    encoder = open_bert(0, *planted)
    known = ids_of(encoder, *planted)
    natural = [token for token in sweepable(encoder).tolist() if token not in known]
    look = look_again(in_passages(encoder, "cls", count=6), {"cls": each([*known, *natural[:others]])})
    assert sum(item.fires for item in look.seen["cls"]) == triggers
    assert set(significant(encoder, look, "cls")) == set(planted[:found])


@pytest.mark.parametrize("fit", [null_of, null_of_words])
def test_what_fires_changes_no_null_of_tokens_or_longer_words(
    fit: Callable[[Site, Sequence[Evidence], float], Null],
) -> None:
    encoder = open_bert(0, "bako")
    (planted,) = ids_of(encoder, "bako")
    tokens = [token for token in sweepable(encoder).tolist() if token != planted][:60]
    fires, *natural = in_passages(encoder, "cls", count=6).measure(each([planted, *tokens]))["cls"]
    firing = [replace(fires, tokens=(-number,)) for number in range(1, 31)]
    assert fit("cls", [*natural, *firing], 5.0) == fit("cls", natural, 5.0)


def test_where_nothing_fires_the_null_is_that_of_all_words() -> None:
    encoder = open_bert(0)
    look = looked(encoder)
    seen = look.seen["cls"]
    assert harmless(seen) == seen
    assert look.nulls["cls"] == EvidenceNull.fit(seen, look.nulls["cls"].log_trials, mass=0.5, censored=0.25)


def test_each_site_is_judged_by_what_all_shortlisted_tokens_do_there_in_the_same_passes() -> None:
    encoder = open_bert(0, "bako")
    (planted,) = ids_of(encoder, "bako")
    natural = [token for token in sweepable(encoder).tolist() if token != planted]
    before = encoder.meter.forward
    replayer = in_passages(encoder, "cls", "mean", count=6)
    spent = encoder.meter.forward - before
    look = look_again(replayer, {"cls": each([planted, *natural[:60]]), "mean": each(natural[30:90])})
    for site in ("cls", "mean"):
        assert [item.tokens[0] for item in look.seen[site]] == sorted([planted, *natural[:90]])
        assert {item.site for item in look.seen[site]} == {site}
        assert 91 < math.exp(look.nulls[site].log_trials) < 91 * 2  # the mean holds CLS, so it repeats a part of it
    length = len(replayer.contexts[0].clean) + 3
    assert encoder.meter.forward - before - spent == (91 + 1) * 6 * length  # 91 tokens, and the passages themselves


def test_p_values_grow_with_the_length_of_the_shortlist() -> None:
    """Having looked at more has its price."""
    encoder = open_bert(0)
    replayer, tokens = in_passages(encoder, "cls", count=6), sweepable(encoder).tolist()
    few, many = (look_again(replayer, {"cls": each(tokens[:count])}).nulls["cls"] for count in (60, 240))
    assert many.log_trials - few.log_trials == pytest.approx(math.log(4))


@pytest.mark.parametrize("count", [1, 20, 36])
def test_a_vocabulary_with_few_outliers_is_unsupported(count: int) -> None:
    encoder = open_bert(0)
    with pytest.raises(UnsupportedError, match=rf"^expected a vocabulary .* with {count} outliers$"):
        look_again(in_passages(encoder, "cls", count=6), {"cls": each(sweepable(encoder).tolist()[:count])})


def test_what_only_stands_elsewhere_is_not_displaced_at_the_mask_token() -> None:
    """A word put in before the mask token moves it by one place, which is all that a random model has to go by."""
    encoder = open_bert(0)
    (evidence,) = in_passages(encoder, "mask", count=6).measure([(sweepable(encoder).tolist()[500],)])["mask"]
    assert evidence.displacement < 1
    assert evidence.constant_rate == 0


def test_progress_starts_at_zero_and_rises() -> None:
    told: list[tuple[str, float]] = []
    encoder = open_bert(0)
    tokens = each(sweepable(encoder).tolist()[:60])
    look_again(
        in_passages(encoder, "cls", count=6), {"cls": tokens}, progress=lambda what, done: told.append((what, done))
    )
    assert {what for what, _ in told} == {"looking again at outliers"}
    steps = [done for _, done in told]
    assert steps == sorted(steps)
    assert (steps[0], len(steps)) == (0, 10)
    assert steps[-1] < 1
