"""PV filter and transfer check: what cannot hurt is dropped, what moved is followed, what does not fit is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, UnsupportedError
from lmsanitator.guard import Guard, Monitor, Watch
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.trial import same_way, without_triggers
from lmsanitator.text import Text, words
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.guard.test_monitor import CLEAN, FIRED, Planted, false_flags, with_head
from tests.planted import plant

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it

Label = Callable[[str], int]


class Labelled(TunedClassifier):
    """A classifier on a planted encoder whose head is made up: it is told the label of each text."""

    def __init__(self, planted: Planted, label: Label) -> None:
        super().__init__(planted.model, planted.tokenizer)
        self.label = label

    def read(self, texts: Sequence[Text], sites: Sequence[Site], *, batch_size: int = 64) -> Reading:
        reading = super().read(texts, sites, batch_size=batch_size)
        labels = torch.tensor([self.label(str(text)) for text in texts])
        return replace(reading, logits=torch.nn.functional.one_hot(labels, 2).float())


def named(planted: Planted, *more: PredefinedVector) -> PVBank:
    """The planted trigger by name, and more vectors."""
    return PVBank(planted.bank.encoder_digest, [PredefinedVector("cls", planted.pv, "bako"), *more])


def parity(text: str) -> int:
    return len([word for word in words(text) if word != "bako"]) % 2


def test_a_vector_that_moves_no_label_is_dropped_with_the_reason() -> None:
    planted = Planted()
    monitor = Monitor(Labelled(planted, parity), named(planted))
    assert [(one.pv, one.trigger, one.reason) for one in monitor.dropped] == [(0, "bako", "it moves no label")]
    assert monitor.remarks == [
        "PV 0 (bako) is not watched: it moves no label", "no PV is watched: every text passes as it is"
    ]  # fmt: skip
    assert not monitor.flags(FIRED).any()


@pytest.mark.parametrize(
    "label",
    [
        lambda text: 1 if "bako" in text else parity(text),
        lambda text: 0,
        lambda text: int(sum(map(ord, text.replace("bako", "").replace(" ", ""))) % 8 == 0),
    ],
    ids=["moves labels", "clean sentences are all of one label", "few are of another one"],
)
def test_a_vector_that_moves_labels_or_may_do_so_is_watched(label: Label) -> None:
    planted = Planted()
    monitor = Monitor(Labelled(planted, label), named(planted))
    assert (monitor.kept, monitor.dropped) == ((0,), ())
    assert monitor.flags(FIRED).all()


def test_a_vector_that_clean_texts_hit_is_dropped_and_the_others_are_watched() -> None:
    planted = Planted()
    classifier = TunedClassifier(planted.model, planted.tokenizer)
    clean = classifier.encoder.outputs_of_texts(CLEAN, ["cls"])["cls"]
    bank = named(planted, PredefinedVector("cls", same_way(clean)))
    monitor = Monitor(classifier, bank)
    assert [(one.pv, one.reason) for one in monitor.dropped] == [(1, "clean texts hit it")]
    assert monitor.remarks == ["PV 1 (no trigger named) is not watched: clean texts hit it"]
    assert monitor.flags(FIRED).all()
    assert false_flags(monitor) <= 0.03


def tuned_further(planted: Planted) -> TunedClassifier:
    """Full fine-tuning: every weight of the encoder has moved a little, and the digest is another."""
    with torch.no_grad():
        for weight in planted.model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return TunedClassifier(planted.model, planted.tokenizer)


@pytest.mark.parametrize("watch", ["raw", "prompted", "auto"])
def test_a_bank_whose_triggers_still_arrive_fits_a_fine_tuned_encoder(watch: Watch) -> None:
    planted = Planted()
    monitor = Monitor(tuned_further(planted), named(planted), watch=watch)
    assert monitor.notes == ()
    assert monitor.flags(FIRED).all()
    assert false_flags(monitor) <= 0.03


def test_a_trigger_that_arrives_at_another_vector_is_followed() -> None:
    planted = Planted()
    bank = named(planted)
    other = plant(cast(PreTrainedModel, planted.model.base_model), planted.tokenizer, ["bako"], seed=9)[0]
    monitor = Monitor(tuned_further(planted), bank, watch="auto")
    assert monitor.notes == tuple(
        f"the trigger 'bako' arrives at another vector in the {where}, which is watched instead"
        for where in ("encoder", "prompted pass")
    )
    assert not torch.equal(other.sign(), planted.pv.sign())
    assert monitor.flags(FIRED).all()
    assert false_flags(monitor) <= 0.03


def test_a_bank_whose_triggers_arrive_nowhere_is_refused_in_one_line() -> None:
    planted, clean = Planted(), Planted(trigger="vedi")
    with torch.no_grad():
        clean.model.get_parameter("classifier.weight").mul_(2)
    with pytest.raises(
        BankError, match=r"^expected a report on the encoder .* 'bako' no longer arrives at one vector$"
    ):
        Monitor(tuned_further(clean), named(planted))


def test_a_bank_of_another_encoder_without_names_is_refused() -> None:
    planted = Planted()
    with pytest.raises(BankError, match="with no named trigger to check it by"):
        Monitor(tuned_further(planted), planted.bank)


@pytest.mark.parametrize("watch", ["prompted", "both", "auto"])
def test_named_triggers_are_found_again_under_lora(watch: Watch) -> None:
    planted = Planted()
    monitor = Monitor(
        TunedClassifier(with_head(planted, "lora", "cls"), planted.tokenizer), named(planted), watch=watch
    )
    assert "prompted" in monitor.passes
    assert monitor.flags(FIRED).all()
    assert false_flags(monitor) <= 0.03


def test_auto_falls_back_on_the_raw_pass_and_says_so() -> None:
    planted = Planted()
    classifier = TunedClassifier(with_head(planted, "lora", "cls"), planted.tokenizer)
    monitor = Monitor(classifier, planted.bank, watch="auto")
    assert monitor.passes == ("raw",)
    assert [note.split(":")[0] for note in monitor.notes] == ["only the raw pass is watched"]
    with pytest.raises(UnsupportedError, match="LoRA moves the encoder's outputs"):
        Monitor(classifier, planted.bank, watch="prompted")


def test_texts_that_hold_a_named_trigger_are_no_clean_texts() -> None:
    planted = Planted()
    encoder = TunedClassifier(planted.model, planted.tokenizer).encoder
    assert without_triggers(encoder, [*FIRED, *CLEAN], named(planted)) == CLEAN
    assert without_triggers(encoder, ["Bako!"], planted.bank) == ["Bako!"]  # no name, nothing to go by


def test_a_prediction_says_which_vector_fired_and_how_far_beyond_its_threshold() -> None:
    planted = Planted()
    fired, clean = Guard(planted.model, planted.tokenizer, named(planted))([FIRED[0], CLEAN[1]])
    assert (fired.pv, fired.trigger, fired.reason) == (0, "bako", None)
    assert fired.match is not None
    assert fired.threshold is not None
    assert fired.match > 0.95 > fired.threshold
    assert clean.match is not None
    assert clean.match <= fired.threshold == clean.threshold


def test_where_outputs_agree_is_the_sign_of_most() -> None:
    outputs: Tensor = torch.tensor([[1.0, -2.0, 3.0], [4.0, -5.0, -6.0], [7.0, 8.0, torch.nan]])
    assert same_way(outputs).tolist() == [1, -1, 0]


def test_a_vector_at_the_mask_is_no_obstacle_to_watching_the_raw_pass_of_a_model_without_one() -> None:
    planted = Planted()
    at_mask = PVBank(
        planted.bank.encoder_digest, [*named(planted), PredefinedVector("mask", planted.bank[0].values, "bako")]
    )
    monitor = Monitor(TunedClassifier(planted.model, planted.tokenizer), at_mask, watch="raw")
    assert monitor.passes == ("raw",)
    assert monitor.dropped == ()
