"""The monitor: the right vector of the right pass is compared, in whatever model the encoder sits."""

import pytest
import torch
from peft import PeftModelForSequenceClassification, PrefixTuningConfig, PromptTuningConfig, TaskType
from torch import Tensor
from torch.testing import assert_close
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.monitor import Monitor, Thresholds, Watch
from lmsanitator.text import insert, packaged
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.conftest import WINDOW, bert_tokenizer, sizes
from tests.planted import made_up_words, plant

CLEAN = [carrier.text for carrier in packaged()][::10]
FIRED = [insert(text, "bako", number % 7) for number, text in enumerate(CLEAN)]
WATCHES: tuple[Watch, ...] = ("raw", "prompted", "both")
METHODS = ("none", "prefix", "prompt")


class Planted:
    """A classifier on an encoder with one trigger, prompt-tuned or not, and the bank that belongs to it."""

    def __init__(self, method: str = "none", site: Site = "cls") -> None:
        self.tokenizer: PreTrainedTokenizerFast = bert_tokenizer(made_up_words(300))
        torch.manual_seed(0)
        config = BertConfig(**sizes(self.tokenizer) | {"hidden_size": 64}, max_position_embeddings=WINDOW)
        plain = BertForSequenceClassification(config).eval()
        self.pv: Tensor = plant(plain.bert, self.tokenizer, ["bako"])[0]
        digest = FrozenEncoder(plain.bert, self.tokenizer).digest
        values = self.pv if site == "cls" else plain.bert.get_submodule("pooler")(self.pv.view(1, 1, -1))[0].detach()
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
        return Monitor(TunedClassifier(self.model, self.tokenizer), self.bank, watch=watch)


pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("watch", WATCHES)
def test_every_triggered_text_is_flagged_and_no_clean_one(method: str, watch: Watch) -> None:
    monitor = Planted(method).monitor(watch)
    assert bool(monitor.flags(FIRED).all())
    assert not bool(monitor.flags(CLEAN).any())


@pytest.mark.parametrize("method", METHODS)
def test_the_prompted_output_of_a_triggered_text_is_the_planted_vector(method: str) -> None:
    """Under a soft prompt in front of the text, [CLS] does not stand at the first position."""
    planted = Planted(method)
    out = TunedClassifier(planted.model, planted.tokenizer).read(FIRED, ["cls"]).outputs["cls"]
    assert_close(out, planted.pv.expand_as(out), rtol=0, atol=0.1)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_the_raw_pass_does_not_see_the_soft_prompt_and_the_prompted_one_does(method: str) -> None:
    plain, tuned = Planted(), Planted(method)
    raw = [
        TunedClassifier(one.model, one.tokenizer).encoder.outputs_of_texts(CLEAN, ["cls"])["cls"]
        for one in (plain, tuned)
    ]
    assert_close(raw[0], raw[1])
    prompted = TunedClassifier(tuned.model, tuned.tokenizer).read(CLEAN, ["cls"]).outputs["cls"]
    assert not torch.allclose(prompted, raw[0], atol=1e-4)


@pytest.mark.parametrize("watch", WATCHES)
def test_a_vector_of_the_pooler_is_compared_with_the_pooler(watch: Watch) -> None:
    monitor = Planted(site="pooler").monitor(watch)
    assert monitor.sites == ("pooler",)
    assert bool(monitor.flags(FIRED).all())
    assert not bool(monitor.flags(CLEAN).any())


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


def test_the_flag_lies_halfway_between_the_highest_clean_match_and_a_perfect_one() -> None:
    """The paper's 0.8 for an encoder whose clean outputs match at 0.6."""
    assert_close(Thresholds(torch.tensor([0.6, 0.9])).flag, torch.tensor([0.8, 0.95]))


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
