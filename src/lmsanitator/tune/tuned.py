"""A tuned model: how it predicts, how it is stored.

What is stored is an ordinary PEFT adapter folder; its README.md says how it is loaded: by `transformers` and `peft`
themselves, or, where the head reads a site of its own, by this package. `lmsanitator.json` beside the adapter holds
what PEFT has no place for: the label names, the site, and the encoder's digest.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from peft import PeftModel, PeftModelForSequenceClassification, PeftModelForTokenClassification
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError
from lmsanitator.output import new_folder
from lmsanitator.text import Text
from lmsanitator.tune.adapter import classifier_of
from lmsanitator.tune.head import SiteClassifier
from lmsanitator.tune.inputs import batches_by_length, characters, in_order, make_inputs
from lmsanitator.tune.methods import HeadSite, TuneConfig, input_length

SCHEMA = "lmsanitator.tuned/1"
NOTES = "lmsanitator.json"
AnyClassifier = PeftModelForSequenceClassification | PeftModelForTokenClassification


@dataclass(frozen=True)
class TunedModel:
    """A classifier of texts or of words, made of a frozen encoder, an adapter and a head.

    Args:
        model: the PEFT model, in eval mode, all weights frozen.
        tokenizer: the encoder's; its `model_max_length` is what the virtual tokens leave of the window.
        labels: label names in the order of the logits.
        encoder: what it was tuned on; shares its weights with `model`.
        accuracy: on the validation split, for words the entity F1; NaN for an adapter that does not say.
    """

    model: AnyClassifier
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    encoder: FrozenEncoder
    accuracy: float = math.nan

    @property
    def source(self) -> str:
        """The checkpoint of the encoder."""
        return self.encoder.source

    @property
    def labels_words(self) -> bool:
        """Whether each word gets a label (`predict_words`), or the text has one (`predict`)."""
        return isinstance(self.model, PeftModelForTokenClassification)

    @property
    def site(self) -> HeadSite:
        """Where the head reads."""
        classifier = classifier_of(self.model)
        return classifier.site if isinstance(classifier, SiteClassifier) else "auto"

    @property
    def encoder_digest(self) -> str:
        """What scan reports and PV banks of the encoder are bound to."""
        return self.encoder.digest

    def save(self, out: Path) -> None:
        """Write a PEFT adapter folder, whole or not at all.

        Raises:
            TuningError: the encoder is in memory only, so that the adapter could not name it.
            OutputError: `out` exists or cannot be written.
        """
        base = str(self.model.peft_config["default"].base_model_name_or_path)
        if not Path(base).is_dir() and "/" not in base:
            raise TuningError(f"expected an encoder that was opened from a checkpoint, got one from {base}")
        with new_folder(out) as part:
            self.model.save_pretrained(str(part))
            self.tokenizer.save_pretrained(part)
            notes = {
                "schema": SCHEMA,
                "labels": self.labels,
                "site": self.site,
                "max_length": self.tokenizer.model_max_length,
                "encoder_digest": self.encoder_digest,
                "validation_accuracy": None if math.isnan(self.accuracy) else self.accuracy,
            }
            (part / NOTES).write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            (part / "README.md").write_text(self._card(base), encoding="utf-8")

    def _card(self, base: str) -> str:
        kind = "Token" if self.labels_words else "Text"
        return (
            f"---\nlibrary_name: peft\npipeline_tag: {kind.lower()}-classification\n---\n\n"
            f"# {kind} classifier on a frozen encoder\n\n"
            f"Labels: {', '.join(self.labels)}. {self._how_to_load(base)}"
            "A backdoor of the encoder is still in it: predict through `lmsanitator guard`.\n"
        )

    def _how_to_load(self, base: str) -> str:
        if self.site != "auto":
            return (
                f"Its head reads the encoder's output at the site `{self.site}`, which no class of transformers does, "
                "so it loads with lmsanitator:\n\n```python\n"
                "from lmsanitator.tune import load_tuned, predict\n\n"
                'tuned = load_tuned(".")\nlogits = predict(tuned.model, tuned.tokenizer, ["some text"])\n```\n\n'
            )
        revision = self.model.peft_config["default"].revision
        pinned = f"    revision={revision!r},\n" if revision else ""
        head = f"AutoModelFor{'Token' if self.labels_words else 'Sequence'}Classification"
        return (
            "Loads without lmsanitator:\n\n```python\nimport json\n\n"
            f"from peft import PeftModel\nfrom transformers import {head}\n\n"
            f'labels = json.load(open("{NOTES}"))["labels"]\n'
            f"base = {head}.from_pretrained(\n    {base!r},\n{pinned}"
            f"    id2label=dict(enumerate(labels)),\n    pad_token_id={self.tokenizer.pad_token_id},\n"
            '    use_safetensors=True,\n)\nmodel = PeftModel.from_pretrained(base, ".")\n```\n\n'
        )


def logits_of(
    model: PeftModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[Text]
) -> Float[Tensor, "texts labels"]:
    """The logits of one batch, on the model's device. Texts are cut to the tokenizer's `model_max_length`."""
    batch = make_inputs(classifier_of(model), tokenizer, texts)
    logits: Tensor = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
    return logits


def predict(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[Text],
    batch_size: int = 64,
) -> Float[Tensor, "texts labels"]:
    """The logits of many texts, or pairs of texts, in their order; those of like length share a batch."""
    if not texts:
        return torch.empty(0, model.config.num_labels)
    batches = batches_by_length([characters(text) for text in texts], batch_size)
    with torch.no_grad():
        parts = [logits_of(model, tokenizer, [texts[index] for index in batch]).cpu() for batch in batches]
    return in_order(torch.cat(parts), batches)


def limited_tokenizer(encoder: FrozenEncoder, config: TuneConfig) -> PreTrainedTokenizerFast:
    """A copy of the encoder's tokenizer that cuts inputs to what the virtual tokens leave of the window."""
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.model_max_length = input_length(encoder, config)
    return tokenizer
