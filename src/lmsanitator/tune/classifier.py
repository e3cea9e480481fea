"""A classifier on a frozen encoder: its own architecture's head, PEFT's virtual tokens, nothing trained yet."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftModelForSequenceClassification,
    PrefixTuningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
)
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError
from lmsanitator.tune.methods import TuneConfig, check_supported, input_length

_SAVED_BY_PEFT = ("classifier", "score")
_PREFIX_SCALE = 0.02


def build(
    encoder: FrozenEncoder | str | Path, labels: Sequence[str], config: TuneConfig
) -> PeftModelForSequenceClassification:
    """A sequence classifier on the encoder with virtual tokens and a head, neither trained yet.

    The encoder's weights are shared with it, frozen. The virtual tokens and every module that no checkpoint holds (the
    head; the pooler where this one has none) are initialised by seed, trainable, and saved by PEFT.

    With `prompt` PEFT puts the n virtual tokens before [CLS], so that [CLS] sits at index n and a head that reads the
    first position (BERT's pooler among them) reads a virtual token. This is PEFT's ordinary behaviour, and what its
    users run, so it is kept: whoever watches the site `cls` of such a model has to watch index n.

    Args:
        encoder: an open encoder, or where to open one.
        labels: the label names, in the order of the logits.

    Raises:
        UnsupportedError: the architecture does not take the method.
        TuningError: fewer than two labels, or no room for the virtual tokens.
    """
    opened = encoder if isinstance(encoder, FrozenEncoder) else FrozenEncoder.open(encoder)
    check_supported(opened, config.method)
    input_length(opened, config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a property that transformers is about to rename
        torch.manual_seed(config.seed)
        classifier = _classifier(opened, labels)
        model = PeftModelForSequenceClassification(classifier, _adapter_config(opened, classifier, config))
    if config.method == "prefix":
        # PEFT's unit variance drowns the text and dilutes the backdoor that is to be studied (measured on MiniLM: ASR
        # 0.97 against 1.0, accuracy 0.90 against 0.93); with zeros the virtual tokens would stay alike for ever
        with torch.no_grad():
            for weight in model.prompt_encoder.parameters():
                weight.mul_(_PREFIX_SCALE)
    # eval mode for good: with the encoder frozen, its dropout would only add noise to the virtual tokens' gradient
    return model.to(opened.device).eval()


def _classifier(encoder: FrozenEncoder, labels: Sequence[str]) -> PreTrainedModel:
    """The architecture's own classifier, as transformers would load it: encoder weights as given, head at random."""
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise TuningError(f"expected two or more different labels, got {', '.join(labels) or 'none'}")
    config = copy.deepcopy(encoder.model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = encoder.tokenizer.pad_token_id  # decoders look for the last token that is not padding
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = encoder.model.state_dict()
    if pooler_is_random(encoder):  # keep the one just initialised by seed: it is trained with the head
        weights = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    # assign: the classifier shares the frozen tensors, a second copy of a large encoder is not needed
    lost = model.base_model.load_state_dict(weights, strict=False, assign=True).missing_keys
    lost = [name for name in lost if not name.startswith("pooler.")]
    if lost:
        raise TuningError(f"expected the weights of a {type(model).__name__}, the encoder has no {lost[0]}")
    model.requires_grad_(False)
    return model


def _adapter_config(
    encoder: FrozenEncoder, classifier: PreTrainedModel, config: TuneConfig
) -> PrefixTuningConfig | PromptTuningConfig:
    """PEFT's configuration of the method, with what PEFT cannot infer for some architectures filled in."""
    base, revision = origin(encoder.source)
    shared: dict[str, Any] = {
        "task_type": TaskType.SEQ_CLS,
        "num_virtual_tokens": config.virtual_tokens,
        "modules_to_save": _unsaved_modules(encoder, classifier) or None,
        "base_model_name_or_path": base,
        "revision": revision,
    }
    if config.method == "prefix":
        return PrefixTuningConfig(**shared)
    a_word = torch.zeros(1, 1, dtype=torch.long)
    return PromptTuningConfig(
        **shared,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,  # random vectors are far from anything the encoder knows
        token_dim=encoder.embed(a_word).shape[-1],  # ALBERT's and ELECTRA's is not hidden_size
        num_layers=classifier.config.num_hidden_layers,
        num_attention_heads=classifier.config.num_attention_heads,
    )


def _unsaved_modules(encoder: FrozenEncoder, classifier: PreTrainedModel) -> list[str]:
    """Modules that neither the checkpoint nor PEFT would save: DeBERTa's pooler, ModernBERT's head, DistilBERT's
    pre_classifier, and a pooler the checkpoint came without. Unsaved, they would be random again after loading."""
    known = (classifier.base_model_prefix, *_SAVED_BY_PEFT)
    names = [name for name, part in classifier.named_children() if name not in known and list(part.parameters())]
    if pooler_is_random(encoder) and getattr(classifier.base_model, "pooler", None) is not None:
        names.append("pooler")
    return names


def pooler_is_random(encoder: FrozenEncoder) -> bool:
    """Whether the encoder has a pooler that its checkpoint did not hold."""
    return getattr(encoder.model, "pooler", None) is not None and "pooler" not in encoder.sites


def origin(source: str) -> tuple[str, str | None]:
    """Where an encoder came from, as PEFT writes it: an absolute folder, or a hub id and its revision."""
    folder = Path(source)
    if folder.is_dir():
        return str(folder.resolve()), None
    repo, _, revision = source.partition("@")
    return repo, revision or None
