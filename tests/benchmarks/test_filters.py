"""Input filters of the literature: what each looks at, and what a threshold lets through."""

import random
from collections.abc import Sequence

import pytest
import torch

from benchmarks.defence.filters import FILTERS, LanguageModel, Look, Onion, Rap, Setting, Strip
from benchmarks.defence.filters.compare import compare, filtered
from benchmarks.defence.filters.interface import threshold_for
from benchmarks.defence.filters.onion import WordLook
from benchmarks.defence.filters.strip import mix
from lmsanitator.attacks import Trigger
from lmsanitator.attacks.mlm import TiedHead
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.guard import Guard
from lmsanitator.text import packaged
from lmsanitator.tune import Example, Task, TuneConfig, TunedModel, predict, tune
from lmsanitator.vectors import PVBank
from tests.conftest import make_bert

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's, on its own
EXAMPLES = tuple(Example(carrier.text, number % 2) for number, carrier in enumerate(packaged()[:260]))
TEXTS = [example.text for example in EXAMPLES[:6]]


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder(*make_bert())


@pytest.fixture(scope="module")
def tuned(encoder: FrozenEncoder) -> TunedModel:
    task = Task(("even", "odd"), EXAMPLES[:32], EXAMPLES[32:40], EXAMPLES[40:48])
    return tune(encoder, task, TuneConfig(site="cls", virtual_tokens=2, max_steps=2, max_length=48))


@pytest.fixture(scope="module")
def setting(encoder: FrozenEncoder, tuned: TunedModel) -> Setting:
    known = sorted(set(encoder.tokenizer(" ".join(TEXTS[:2]), add_special_tokens=False).input_ids))
    return Setting(tuned, EXAMPLES[:40], LanguageModel(encoder, TiedHead(encoder, known)))


def looks(scores: Sequence[float]) -> list[Look]:
    return [Look("text", score) for score in scores]


def test_a_threshold_lets_through_all_but_the_share_that_may_be_touched() -> None:
    clean = looks(range(200))
    at = threshold_for(clean, 0.05)
    assert sum(look.score > at for look in clean) == 10
    with pytest.raises(CorpusError, match="expected 200 clean texts or more"):
        threshold_for(looks(range(150)), 0.005)


def test_a_rejected_text_has_no_rest_and_onion_takes_words_out() -> None:
    assert Look("text", 2.0).rest(1.0) is None
    assert Look("text", 1.0).rest(1.0) == "text"
    look = WordLook("a cf text", [0.5, 9.0, 0.1])
    assert look.score == 9
    assert look.rest(1.0) == "a text"
    assert look.rest(9.0) == "a cf text"


def test_half_of_the_words_are_mixed_in() -> None:
    mixed = mix("a b c d e f", ["x"], 0.5, random.Random(0)).split()
    assert mixed.count("x") == 3
    assert len(mixed) == 6


def test_raps_loss_is_least_within_its_margin() -> None:
    rap = Rap(low=0.1, high=0.3, weight=5)
    falls = [rap.loss(torch.tensor([fall])).item() for fall in (0.0, 0.2, 0.5)]
    assert falls == pytest.approx([0.5, 0, 0.2])


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_scores_every_text_and_leaves_the_model_as_it_was(name: str, setting: Setting) -> None:
    small = {"onion": Onion(batch=7), "strip": Strip(copies=3), "rap": Rap(word="the", epochs=1, batch=8)}
    before = predict(setting.tuned.model, setting.tuned.tokenizer, TEXTS)
    prepared = small[name].prepare(setting)
    found = prepared.look(TEXTS)
    assert [look.text for look in found] == TEXTS
    assert len({look.score for look in found}) > 1
    assert [look.score for look in prepared.look(TEXTS)] == pytest.approx([look.score for look in found], abs=1e-4)
    assert torch.equal(before, predict(setting.tuned.model, setting.tuned.tokenizer, TEXTS))


def test_a_word_the_head_cannot_name_is_no_less_surprising_than_those_it_can(setting: Setting) -> None:
    (look,) = Onion().prepare(setting).look(["the water was zyzzyva"])
    assert isinstance(look, WordLook)
    assert look.surprises[-1] > 0
    assert len(look.surprises) == 4


def test_rap_needs_a_word_of_one_token(setting: Setting) -> None:
    with pytest.raises(CorpusError, match="expected a word of one token for RAP"):
        Rap(word="zyzzyva").prepare(setting)


def test_a_rejected_text_is_wrong_for_accuracy_and_no_success_of_the_attack(tuned: TunedModel) -> None:
    examples = [Example(text, 0) for text in TEXTS]
    rejected = [Look(text, 1.0) for text in TEXTS]
    found = filtered(tuned, examples, rejected, examples, [rejected], 0.5)
    assert found == {"cacc": 0, "touched": 1, "asr": 0, "asr_mean": 0}


def test_the_guard_stands_beside_every_filter_at_every_rate(
    tuned: TunedModel, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PREPARED", 24), ("CALIBRATION", 200), ("CLEAN", 12), ("ATTACKED", 4)):
        monkeypatch.setattr(f"benchmarks.defence.filters.compare.{name}", value)
    monkeypatch.setattr("benchmarks.defence.filters.compare.FILTERS", {"strip": Strip(copies=2)})
    guard = Guard(tuned.model, tuned.tokenizer, PVBank(tuned.encoder_digest))
    rows = compare(tuned, guard, EXAMPLES[:24], EXAMPLES[24:], [Trigger.parse("cf")], setting.trusted, 0.001)
    assert [(row["filter"], row["rate"]) for row in rows] == [
        ("none", None),
        ("guard", 0.001),
        ("strip", 0.005),
        ("strip", 0.05),
    ]
    assert rows[0]["asr"] == rows[1]["asr"]
