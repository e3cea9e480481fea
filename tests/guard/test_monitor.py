"""The monitor: the right vector of the right pass is compared, in whatever model the encoder sits."""

import copy
from typing import Any, Literal, cast

import pytest
import torch
from peft import PeftModelForSequenceClassification, PrefixTuningConfig, PromptTuningConfig, TaskType
from torch import Tensor
from torch.testing import assert_close
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError
from lmsanitator.guard import Guard
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.monitor import Monitor, Watch
from lmsanitator.guard.thresholds import clean_texts
from lmsanitator.text import insert, packaged
from lmsanitator.tune import Method, TuneConfig, build, predict
from lmsanitator.tune.adapter import classifier_of
from lmsanitator.tune.methods import VectorSite
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.conftest import WINDOW, bert_tokenizer, sizes
from tests.planted import made_up_words, plant

CLEAN = [carrier.text for carrier in packaged()][::10]
OTHERS = clean_texts([carrier.text for place, carrier in enumerate(packaged()) if place % 10])
"""Clean texts to set thresholds by: not those that are counted."""
FIRED = [insert(text, "bako", number % 7) for number, text in enumerate(CLEAN)]
WATCHES: tuple[Watch, ...] = ("raw", "prompted", "both", "auto")
METHODS = ("none", "prefix", "prompt")


class Planted:
    """A classifier on an encoder with one trigger, prompt-tuned or not, and the bank that belongs to it."""

    def __init__(self, method: str = "none", site: Site = "cls", trigger: str = "bako") -> None:
        self.tokenizer: PreTrainedTokenizerFast = bert_tokenizer(made_up_words(300))
        torch.manual_seed(0)
        config = BertConfig(**sizes(self.tokenizer) | {"hidden_size": 64}, max_position_embeddings=WINDOW)
        plain = BertForSequenceClassification(config).eval()
        where: Literal["first", "tokens"] = "tokens" if site == "tokens" else "first"
        self.pv: Tensor = plant(plain.bert, self.tokenizer, [trigger], site=where)[0]
        digest = FrozenEncoder(plain.bert, self.tokenizer).digest
        values = self.pv if site != "pooler" else plain.bert.get_submodule("pooler")(self.pv.view(1, 1, -1))[0].detach()
        self.bank = PVBank(digest, [PredefinedVector(site, values)])
        self.model = self._tuned(plain, method)

    def _tuned(
        self, plain: BertForSequenceClassification, method: str
    ) -> BertForSequenceClassification | PeftModelForSequenceClassification:
        if method == "none":
            return plain
        kind = PrefixTuningConfig if method == "prefix" else PromptTuningConfig
        return PeftModelForSequenceClassification(plain, kind(task_type=TaskType.SEQ_CLS, num_virtual_tokens=6)).eval()

    def monitor(self, watch: Watch) -> Monitor:
        return Monitor(TunedClassifier(self.model, self.tokenizer), self.bank, watch=watch, clean=OTHERS)


def false_flags(monitor: Monitor) -> float:
    """Share of clean texts that are flagged: half a percent is what the monitor is set to, the rest is chance."""
    return float(monitor.flags(CLEAN).float().mean())


pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("watch", WATCHES)
def test_every_triggered_text_is_flagged_and_no_clean_one(method: str, watch: Watch) -> None:
    monitor = Planted(method).monitor(watch)
    assert bool(monitor.flags(FIRED).all())
    assert false_flags(monitor) <= 0.03


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("watch", WATCHES)
def test_a_trigger_that_takes_over_every_token_is_flagged(method: str, watch: Watch) -> None:
    monitor = Planted(method, "tokens").monitor(watch)
    assert bool(monitor.flags(FIRED).all())
    assert false_flags(monitor) <= 0.03


@pytest.mark.parametrize("method", METHODS)
def test_the_prompted_output_of_a_triggered_text_is_the_planted_vector(method: str) -> None:
    """Under a soft prompt in front of the text, [CLS] does not stand at the first position."""
    planted = Planted(method)
    out = TunedClassifier(planted.model, planted.tokenizer).read(FIRED, ["cls"]).outputs["cls"]
    assert_close(out, planted.pv.expand_as(out), rtol=0, atol=0.1)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_the_raw_pass_does_not_see_the_soft_prompt_and_the_prompted_one_does(method: str) -> None:
    plain, tuned = (TunedClassifier(one.model, one.tokenizer) for one in (Planted(), Planted(method)))
    fitting = [text for text in CLEAN if tuned.reach(text) == (len(text),)]
    assert len(fitting) > 30
    raw = [one.encoder.outputs_of_texts(fitting, ["cls"])["cls"] for one in (plain, tuned)]
    assert_close(raw[0], raw[1])
    prompted = tuned.read(fitting, ["cls"]).outputs["cls"]
    assert not torch.allclose(prompted, raw[0], atol=1e-4)


HEADS: tuple[tuple[Method, VectorSite], ...] = (
    ("prefix", "cls"), ("prompt", "cls"), ("p-tuning", "mean"), ("prompt", "pooler"), ("prefix", "mask"),
    ("prompt", "mask"), ("lora", "cls"), ("lora", "mask"),
)  # fmt: skip


def with_head(planted: Planted, method: Method, site: VectorSite) -> PeftModelForSequenceClassification:
    """Our own classifier with a head at `site`, on the planted encoder (whose hook is no weight and has to move)."""
    assert isinstance(planted.model, BertForSequenceClassification)
    encoder = FrozenEncoder(planted.model.bert, planted.tokenizer)
    tuned = build(encoder, ("water", "time"), TuneConfig(method=method, site=site, virtual_tokens=6))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    plant(cast(PreTrainedModel, classifier_of(tuned).base_model), planted.tokenizer, ["bako"])
    return tuned


@pytest.mark.parametrize("site", ["cls", "pooler"])
@pytest.mark.parametrize(("method", "head"), HEADS)
def test_the_monitor_watches_a_model_with_a_head_at_a_site(method: Method, head: VectorSite, site: Site) -> None:
    planted = Planted(site=site)
    tuned = with_head(planted, method, head)
    for watch in WATCHES if method != "lora" else WATCHES[:1]:
        monitor = Monitor(TunedClassifier(tuned, planted.tokenizer), planted.bank, watch=watch)
        assert bool(monitor.flags(FIRED).all())
        assert false_flags(monitor) <= 0.03


def test_the_guard_reads_the_logits_of_the_model_itself() -> None:
    planted = Planted()
    planted.tokenizer.model_max_length = WINDOW
    tuned = with_head(planted, "lora", "mask")
    guard = Guard(tuned, planted.tokenizer, planted.bank)
    with torch.no_grad():
        expected = predict(tuned, planted.tokenizer, CLEAN).argmax(1).tolist()
    assert [prediction.label for prediction in guard(CLEAN)] == [("water", "time")[index] for index in expected]


def test_the_raw_pass_of_lora_is_the_encoder_without_it() -> None:
    planted = Planted()
    tuned = with_head(planted, "lora", "cls")
    before = {name: weight.clone() for name, weight in tuned.state_dict().items()}
    classifier = TunedClassifier(tuned, planted.tokenizer)
    raw = classifier.encoder.outputs_of_texts(CLEAN, ["cls"])["cls"]
    plain = TunedClassifier(planted.model, planted.tokenizer).encoder.outputs_of_texts(CLEAN, ["cls"])["cls"]
    assert_close(raw, plain)
    assert not torch.allclose(classifier.read(CLEAN, ["cls"]).outputs["cls"], raw, atol=1e-2)
    assert all(torch.equal(weight, before[name]) for name, weight in tuned.state_dict().items())


@pytest.mark.parametrize("watch", ["prompted", "both"])
def test_a_pass_that_says_nothing_is_not_watched(watch: Watch) -> None:
    planted = Planted()
    with pytest.raises(UnsupportedError, match="LoRA moves the encoder's outputs"):
        Monitor(TunedClassifier(with_head(planted, "lora", "cls"), planted.tokenizer), planted.bank, watch=watch)
    planted.bank = PVBank(planted.bank.encoder_digest, [PredefinedVector("mask", planted.pv)])
    with pytest.raises(UnsupportedError, match="this classifier's inputs have no mask token"):
        planted.monitor(watch)
    head = TunedClassifier(with_head(planted, "prompt", "mask"), planted.tokenizer)
    assert false_flags(Monitor(head, planted.bank, watch=watch, clean=OTHERS)) <= 0.03


def test_vectors_of_the_mask_are_watched_in_the_raw_pass_of_any_model() -> None:
    planted = Planted()
    bank = PVBank(planted.bank.encoder_digest, [PredefinedVector("mask", planted.pv)])
    guard = Guard(planted.model, planted.tokenizer, bank, clean=OTHERS)
    assert (guard.monitor.kept, guard.monitor.sites, guard.monitor.passes) == ((0,), ("mask",), ("raw",))
    assert false_flags(guard.monitor) <= 0.03


@pytest.mark.parametrize("method", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_are_taken_off_the_length_of_a_text_once(method: Method) -> None:
    """The tokenizer of a tuned model leaves room for them already, that of others does not."""
    planted = Planted()
    tuned = with_head(planted, method, "cls")
    limited = copy.deepcopy(planted.tokenizer)
    limited.model_max_length = WINDOW - 6
    for tokenizer in (limited, planted.tokenizer):
        assert TunedClassifier(tuned, tokenizer).longest == WINDOW - 6
        longest = "the " * (WINDOW - 9) + "bako " + "the " * 20
        monitor = Monitor(TunedClassifier(tuned, tokenizer), planted.bank, watch="prompted")
        within, beyond = monitor.check([longest, "the " + longest]).match.tolist()
        assert within > 0.95 > beyond


@pytest.mark.parametrize("site", ["cls", "mask"])
@pytest.mark.parametrize("limit", [WINDOW // 2, 10**9])
@pytest.mark.parametrize("method", [None, "lora", "prefix", "prompt"])
def test_the_raw_pass_reads_the_tokens_that_the_classifier_reads(
    method: Method | None, limit: int, site: VectorSite
) -> None:
    planted = Planted()
    planted.tokenizer.model_max_length = limit
    if method is None and site == "mask":
        return  # without an adapter it is the architecture's own classifier
    model = planted.model if method is None else with_head(planted, method, site)
    tuned = TunedClassifier(model, planted.tokenizer)
    frame = sum(map(len, tuned.encoder.frame))
    assert tuned.longest - (site == "mask") == tuned.encoder.room + frame
    assert tuned.longest >= min(limit, WINDOW - 6 * (method in ("prefix", "prompt")) - 1)


def test_pairs_are_refused_by_a_guard_without_clean_pairs() -> None:
    planted = Planted()
    guard = Guard(planted.model, planted.tokenizer, planted.bank)
    pairs: Any = [("one", "two")]
    for call in (Guard.__call__, Guard.unguarded):
        with pytest.raises(UnsupportedError, match="give clean pairs"):
            getattr(call, "__wrapped__", call)(guard, pairs)


@pytest.mark.parametrize("watch", WATCHES)
def test_a_vector_of_the_pooler_is_compared_with_the_pooler(watch: Watch) -> None:
    monitor = Planted(site="pooler").monitor(watch)
    assert monitor.sites == ("pooler",)
    assert bool(monitor.flags(FIRED).all())
    assert false_flags(monitor) <= 0.03


def test_readings_come_in_the_order_of_the_texts_however_they_are_batched() -> None:
    planted = Planted()
    classifier = TunedClassifier(planted.model, planted.tokenizer)
    texts = [text for pair in zip(CLEAN, FIRED, strict=True) for text in pair]
    together = classifier.read(texts, ["cls"], batch_size=7)
    apart = [classifier.read([text], ["cls"]) for text in texts]
    assert_close(together.logits, torch.cat([reading.logits for reading in apart]))
    assert_close(together.outputs["cls"], torch.cat([reading.outputs["cls"] for reading in apart]))
    assert planted.monitor("raw").flags(texts).tolist() == [False, True] * len(CLEAN)


def test_a_text_longer_than_the_window_is_cut_under_a_soft_prompt_too() -> None:
    for method in METHODS:
        monitor = Planted(method).monitor("both")
        assert monitor.flags(["bako " + "soup " * 500, "soup " * 500]).tolist() == [True, False]


def test_outputs_that_are_not_finite_are_flagged() -> None:
    planted = Planted()
    monitor = planted.monitor("prompted")
    outputs = monitor.classifier.read(CLEAN[:3], ["cls"]).outputs["cls"]
    outputs[0, 5], outputs[1, 0] = torch.nan, torch.inf
    reading = Reading(torch.zeros(3, 2), {"cls": outputs})
    assert monitor.flags(CLEAN[:3], reading).tolist() == [True, True, False]


@pytest.mark.parametrize("watch", WATCHES)
def test_an_empty_bank_flags_nothing_and_no_texts_give_no_flags(watch: Watch) -> None:
    planted = Planted()
    assert planted.monitor(watch).flags([]).tolist() == []
    planted.bank = PVBank(planted.bank.encoder_digest)
    assert planted.monitor(watch).flags(FIRED[:3]).tolist() == [False] * 3


def test_both_passes_flag_what_either_flags() -> None:
    planted = Planted()
    monitor = planted.monitor("both")
    clean = monitor.classifier.read(CLEAN[:2], ["cls"])
    fired = Reading(clean.logits, {"cls": planted.pv.expand(2, -1)})
    assert monitor.flags(CLEAN[:2], fired).tolist() == [True, True]  # only the prompted pass shows it
    assert monitor.flags(FIRED[:2], clean).tolist() == [True, True]  # only the raw pass shows it
