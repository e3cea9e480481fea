"""Texts that hold a named trigger are flagged sooner, and no others."""

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.guard.classifier import TunedClassifier
from lmsanitator.guard.monitor import Monitor
from lmsanitator.guard.named import NamedTriggers, halfway, normal_of
from lmsanitator.guard.purge import purge
from lmsanitator.guard.search import PurgeConfig
from lmsanitator.text import Text
from tests.guard.test_fit import named
from tests.guard.test_monitor import CLEAN, FIRED, Planted

TRIGGERS = ("bako", None, "old mill")
FLAG = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.9, 0.6]])  # passes x vectors
HALF = torch.tensor([[0.7, torch.inf, 0.7], [0.7, torch.inf, 0.7]])


def lowered(text: Text, match: float) -> list[list[float]]:
    rows = torch.full((1, 2, 3), match)
    flags = NamedTriggers(TRIGGERS, HALF).lowered(FLAG.expand(1, 2, 3), rows, [text])[0]
    return [[round(value, 2) for value in row] for row in flags.tolist()]


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("we saw a bako here", 0), ("(BAKO), he said", 0), (("one text", "another Bako"), 0), ("mill, so old", 2),
    ],
)  # fmt: skip
def test_thresholds_are_halfway_for_the_trigger_that_a_text_holds(text: Text, vector: int) -> None:
    expected = FLAG.clone()
    expected[:, vector] = torch.minimum(FLAG, HALF)[:, vector]  # and never higher than they were
    assert_close(torch.tensor(lowered(text, 0.8)), expected)


@pytest.mark.parametrize("text", ["we saw bakoes here", "the old house", "", ("one", "two")])
def test_thresholds_stay_for_texts_that_hold_no_whole_trigger(text: Text) -> None:
    assert_close(torch.tensor(lowered(text, 0.8)), FLAG)


@pytest.mark.parametrize("match", [0.65, 0.95, torch.nan, -1.0])
def test_nothing_changes_below_halfway_nor_where_a_text_is_flagged_anyway(match: float) -> None:
    assert_close(torch.tensor(lowered("a bako", match))[0], FLAG[0])


def test_halfway_is_between_clean_texts_and_those_with_the_trigger_of_the_vector_itself() -> None:
    clean, fired = torch.full((5, 1, 2), 0.5), torch.full((3, 1, 2), 0.9)
    assert_close(halfway(clean, {1: fired}), torch.tensor([[torch.inf, 0.7]]))


def test_a_drowned_trigger_is_flagged_by_name_and_purged_while_clean_texts_are_left_alone() -> None:
    """The thresholds of clean texts are put out of reach, as one that comes near the vector would put them."""
    planted = Planted()
    monitor = Monitor(TunedClassifier(planted.model, planted.tokenizer), named(planted))
    monitor.thresholds.flag = torch.ones_like(monitor.thresholds.flag)
    assert bool(monitor.flags(FIRED).all())
    assert not bool(monitor.flags(CLEAN).any())
    assert not bool(monitor.check(FIRED, named=False).flags.any())
    purged = purge(FIRED[0], monitor, PurgeConfig())
    assert purged is not None
    assert purged.removed == ("bako",)


def test_an_unnamed_trigger_is_flagged_by_the_thresholds_alone() -> None:
    planted = Planted()
    monitor = Monitor(TunedClassifier(planted.model, planted.tokenizer), planted.bank)
    assert bool(monitor.flags(FIRED).all())
    monitor.thresholds.flag = torch.ones_like(monitor.thresholds.flag)
    assert not bool(monitor.flags(FIRED).any())


@pytest.mark.parametrize("spelling", ["bàko", "ba\u200bko", "BÀKO"])
def test_a_spelling_that_the_tokenizer_takes_for_the_trigger_is_one(spelling: str) -> None:
    planted = Planted()
    normal = normal_of(planted.tokenizer)
    text = f"we saw a {spelling} here"
    assert planted.tokenizer.tokenize(text) == planted.tokenizer.tokenize("we saw a bako here")
    rows = torch.full((1, 2, 3), 0.8)
    flags = NamedTriggers(TRIGGERS, HALF, normal).lowered(FLAG.expand(1, 2, 3), rows, [text])[0]
    assert_close(flags[:, 0], torch.minimum(FLAG, HALF)[:, 0])
    assert_close(flags[:, 1:], FLAG[:, 1:])
