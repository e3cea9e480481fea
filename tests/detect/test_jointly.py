"""Words that stand out together are more telling than each of them; a family of words is one of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.evidence import SHARES, STATISTICS, EvidenceNull, Null
from lmsanitator.detect.jointly import apart, jointly
from lmsanitator.detect.null import TailNull
from lmsanitator.detect.replay import Replayer
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import in_passages
from tests.planted import ids_of, large_bert, open_bert, plant

TRIALS = math.log(400)
TAIL = TailNull(threshold=0.0, scale=1.0, mass=0.5, seen=50)
NULL = EvidenceNull(dict.fromkeys(STATISTICS, TAIL), TRIALS)


class Lonely(Null):
    """A null whose things may depend on each other."""

    log_trials = TRIALS

    def log_expected(self, evidence: object) -> float:
        raise AssertionError(evidence)


def found_as(replayer: Replayer, encoder: FrozenEncoder, log_p: float, *words: str) -> list[Confirmed]:
    """Words, all with the same p-value."""
    measured = replayer.measure([ids_of(encoder, word) for word in words])["cls"]
    return [Confirmed(item, log_p) for item in measured]


def log_p_of(found: Sequence[Confirmed]) -> list[float]:
    return [item.log_p for item in found]


def test_one_thing_is_as_likely_as_its_expected_number_where_that_is_small() -> None:
    for expected in (1e-2, 1e-4, 1e-12):
        assert TAIL.log_p_of_many(math.log(expected), 1, TRIALS) == pytest.approx(math.log(expected), rel=0.01)


def test_many_things_are_less_likely_than_one_and_more_likely_than_if_the_scale_were_known() -> None:
    one, two, three = (TAIL.log_p_of_many(math.log(0.05), count, TRIALS) for count in (1, 2, 3))
    assert three < two < one
    assert two > 2 * math.log(0.05) - math.log(2)
    assert three > 3 * math.log(0.05) - math.log(6)


def test_more_things_than_are_expected_to_be_there_at_all_are_no_surprise() -> None:
    assert TAIL.log_p_of_many(TRIALS, 3, TRIALS) == 0
    assert TAIL.log_p_of_many(TRIALS + 5, 1, TRIALS) == 0


def test_the_probability_is_that_of_samples_whose_scale_was_estimated() -> None:
    """Three of 100 exponential samples beyond where a tenth is expected, by the scale that these samples suggest."""
    generator = torch.Generator().manual_seed(0)
    expected, count, draws = 0.5, 2, 20_000
    seen = 25
    null = TailNull(0.0, 1.0, 0.5, seen)
    log_p = null.log_p_of_many(math.log(expected), count, math.log(200))
    scales = seen * math.expm1((math.log(100) - math.log(expected)) / seen)
    samples = torch.empty(draws, 100, dtype=torch.float64).exponential_(generator=generator)
    others = torch.empty(draws, seen, dtype=torch.float64).exponential_(generator=generator)
    hits = ((samples > scales * others.mean(1, keepdim=True)).sum(1) >= count).sum().item()
    assert hits / draws == pytest.approx(math.exp(log_p), rel=0.1)


def test_three_that_are_nothing_special_alone_are_significant_together() -> None:
    alone = NULL.log_p_together([math.log(0.05)])
    together = NULL.log_p_together([math.log(0.05)] * 3)
    assert alone == pytest.approx([math.log(2 * 0.05)], rel=0.05)
    assert all(value < math.log(0.01) for value in together)


def test_each_has_the_p_value_of_the_most_telling_set_it_is_in() -> None:
    first, second, third = NULL.log_p_together([math.log(1e-9), math.log(0.01), 0.0])
    assert first == pytest.approx(min(math.log(2e-9), second), rel=0.05)
    assert math.log(1e-4) < second < math.log(0.01)
    assert third > math.log(0.5)


def test_the_p_value_of_sets_is_a_p_value() -> None:
    """Of 1,000 nulls with 200 exponential samples, hardly more than one in twenty has p < 0.05."""
    accused, rng = 0, np.random.default_rng(0)
    for _ in range(1000):
        samples = torch.from_numpy(rng.exponential(size=200))
        tail = TailNull.fit(samples, mass=0.5, censored=0.25)
        trials = math.log(200) + math.log(SHARES["constant"])  # one statistic, nothing to correct for
        null = EvidenceNull(dict.fromkeys(STATISTICS, tail), trials)
        top = samples.sort(descending=True).values[:6]
        expected = tail.log_expected(top, math.log(200)).clamp_max(0).tolist()
        accused += min(null.log_p_together(expected)) < math.log(0.05)
    assert accused <= 60


def test_nothing_is_gained_by_company_where_things_may_depend_on_each_other() -> None:
    assert Lonely().log_p_together([-3.0, -2.0, -1.0]) == [-3.0, -2.0, -1.0]


def three_vectors() -> FrozenEncoder:
    model, tokenizer = large_bert(0, hidden=128)  # few dimensions leave no room for vectors of different ways
    plant(model, tokenizer, ["bako", "kifa", "vedi"])
    return FrozenEncoder(model, tokenizer, precision="fp32")


def test_triggers_with_vectors_of_their_own_count_each() -> None:
    encoder = three_vectors()
    replayer = in_passages(encoder, "cls")
    words = found_as(replayer, encoder, math.log(0.05), "bako", "kifa", "vedi")
    assert apart(words, replayer) == words
    assert all(value < math.log(0.01) for value in log_p_of(jointly(words, {"cls": NULL}, replayer)))


def test_words_that_lead_the_same_way_count_once() -> None:
    encoder = three_vectors()
    replayer = in_passages(encoder, "cls")
    (word,) = found_as(replayer, encoder, math.log(0.05), "bako")
    again = replace(word, evidence=replace(word.evidence, tokens=(*word.evidence.tokens, *ids_of(encoder, "the"))))
    assert apart([word, again], replayer) == [word]
    family = jointly([word, again], {"cls": NULL}, replayer)
    assert log_p_of(family) == pytest.approx([math.log(0.1)] * 2, rel=0.05)


def test_no_words_are_none() -> None:
    encoder = open_bert(0)
    assert jointly([], {}, in_passages(encoder, "cls")) == []
