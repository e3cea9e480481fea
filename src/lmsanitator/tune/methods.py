"""Tuning methods that leave the encoder's weights alone: soft prompts and prefixes, with the task head.

A frozen encoder keeps whatever backdoor it was delivered with, and keeps its PVs too (Wei et al., NDSS 2024, section
II-B). Methods: prompt tuning (Lester et al. 2021, arXiv 2104.08691) and prefix tuning in every layer, which is
P-tuning v2 (Liu et al. 2022, arXiv 2110.07602), both as PEFT implements them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from peft import (
    PeftModelForSequenceClassification,
    PrefixTuningConfig,
    PromptLearningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
)
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError, UnsupportedError, UsageError

Method = Literal["prefix", "prompt"]
METHODS: tuple[Method, ...] = get_args(Method)

_NO_PAST = "its attention takes no past keys and values, and a prefix is made of them"
_READS_END = "its head reads the last position, which is padding in a batch when PEFT prepends a prompt"
_BOTH = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "megatron-bert", "rembert", "data2vec-text")
_PROMPT_ONLY = ("mpnet", "deberta", "deberta-v2", "albert", "distilbert", "modernbert", "mobilebert", "convbert", "roformer")
_PREFIX_ONLY = ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "gemma3_text")
CAPABILITIES: Mapping[str, Mapping[Method, str | None]] = MappingProxyType(
    {kind: {"prefix": None, "prompt": None} for kind in _BOTH}
    | {kind: {"prefix": _NO_PAST, "prompt": None} for kind in _PROMPT_ONLY}
    | {kind: {"prefix": None, "prompt": _READS_END} for kind in _PREFIX_ONLY}
    | {"xlnet": {"prefix": _NO_PAST, "prompt": _READS_END}}
)
"""Architecture (transformers' model_type) -> method -> None, or why it cannot be used. Measured with PEFT 0.21 and
transformers 5.23: the method changes the logits, gets a gradient in every layer, and padding changes nothing."""


@dataclass(frozen=True)
class TuneConfig:
    """How to tune.

    Args:
        method: `prefix` puts virtual tokens before the keys and values of every layer, `prompt` before the input.
        virtual_tokens: how many.
        epochs: the most passes over the training examples.
        patience: stop after so many epochs without a better validation accuracy.
        learning_rate: of the virtual tokens, at its peak (AdamW).
        head_learning_rate: of the classification head, at its peak.
        batch_size: examples an optimiser step.
        max_length: tokens an input is cut to; less where the encoder's window is smaller.
        seed: of the initial weights and the order of the examples.

    Raises:
        UsageError: a value that makes no sense.
    """

    method: Method = "prefix"
    virtual_tokens: int = 8
    epochs: int = 12
    patience: int = 3
    learning_rate: float = 1e-2
    head_learning_rate: float = 5e-3
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"expected a tuning method of {', '.join(METHODS)}; got {self.method}")
        for name, low in (("virtual_tokens", 1), ("epochs", 1), ("patience", 1), ("batch_size", 1), ("max_length", 8)):
            if getattr(self, name) < low:
                raise UsageError(f"expected {name} to be {low} or more, got {getattr(self, name)}")
        for name in ("learning_rate", "head_learning_rate"):
            if not 0 < getattr(self, name) < 10:  # NaN fails this too
                raise UsageError(f"expected {name} between 0 and 10, got {getattr(self, name)}")


def check_supported(encoder: FrozenEncoder, method: Method) -> None:
    """Raise UnsupportedError, with the reason, unless `method` works on this architecture."""
    kind = encoder.model.config.model_type
    if kind not in CAPABILITIES:
        raise UnsupportedError(f"expected an architecture that tuning was tried on, got {kind}")
    reason = CAPABILITIES[kind][method]
    if reason is not None:
        others = [other for other in METHODS if CAPABILITIES[kind][other] is None]
        advice = f"; use {others[0]}" if others else ""
        raise UnsupportedError(f"expected a tuning method that {kind} takes, got {method}: {reason}{advice}")


def build(encoder: FrozenEncoder | str | Path, labels: Sequence[str], config: TuneConfig) -> PeftModelForSequenceClassification:
    """A sequence classifier on the encoder with virtual tokens and a head, neither trained yet.

    The encoder's weights are shared with it, frozen. The virtual tokens and everything that is not in the checkpoint
    (the head; the pooler where the checkpoint has none) are initialised by seed, trainable, and saved by PEFT.

    With `prompt` PEFT puts the n virtual tokens before [CLS], so that [CLS] sits at index n and a head that reads the
    first position (BERT's pooler among them) reads a virtual token. This is PEFT's ordinary behaviour, and what users
    of it run, so it is kept: whoever watches the site `cls` of such a model has to watch index n.

    Args:
        encoder: an open encoder, or where to open one.
        labels: the label names, in the order of the logits.

    Raises:
        UnsupportedError: the architecture does not take the method.
        TuningError: fewer than two labels, or no room for the virtual tokens.
    """
    opened = encoder if isinstance(encoder, FrozenEncoder) else FrozenEncoder.open(encoder)
    check_supported(opened, config.method)
    input_length(opened, config.method, config.virtual_tokens, config.max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        classifier = build_classifier(opened, labels)
        adapter = adapter_config(opened, classifier, config.method, config.virtual_tokens)
        model = PeftModelForSequenceClassification(classifier, adapter)
    # eval mode for good: the encoder is frozen, so its dropout would only add noise to the virtual tokens' gradient
    return model.to(opened.device).eval()


def build_classifier(encoder: FrozenEncoder, labels: Sequence[str]) -> PreTrainedModel:
    """The architecture's own classifier, as transformers would load it: encoder weights as given, head at random.

    Raises:
        TuningError: fewer than two labels, labels that are alike, or an encoder that the classifier does not fit.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise TuningError(f"expected two or more different labels, got {', '.join(labels) or 'none'}")
    config = copy.deepcopy(encoder.model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = encoder.tokenizer.pad_token_id  # decoders look for the last token that is not padding
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = encoder.model.state_dict()
    if pooler_is_random(encoder):  # take the one initialised by seed, it is trained with the head
        weights = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    # assign: the classifier shares the frozen tensors, a second copy of a large encoder is not needed
    lost = model.base_model.load_state_dict(weights, strict=False, assign=True).missing_keys
    lost = [name for name in lost if not name.startswith("pooler.")]
    if lost:
        raise TuningError(f"expected the weights of a {type(model).__name__}, the encoder has no {lost[0]}")
    return model.requires_grad_(False)


def adapter_config(
    encoder: FrozenEncoder, classifier: PreTrainedModel, method: Method, virtual_tokens: int
) -> PromptLearningConfig:
    """PEFT's configuration of a method, with what PEFT cannot infer for some architectures filled in."""
    base, _, revision = encoder.source.partition("@")
    shared: dict[str, Any] = {
        "task_type": TaskType.SEQ_CLS,
        "num_virtual_tokens": virtual_tokens,
        "modules_to_save": untrained_modules(encoder, classifier),
        "base_model_name_or_path": base,
        "revision": revision or None,
    }
    if method == "prefix":
        return PrefixTuningConfig(**shared)
    sizes = classifier.config
    return PromptTuningConfig(
        **shared,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,  # random vectors are far from anything the encoder knows
        token_dim=classifier.get_input_embeddings().embedding_dim,  # ALBERT's and ELECTRA's differ from hidden_size
        num_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
    )


def untrained_modules(encoder: FrozenEncoder, classifier: PreTrainedModel) -> list[str]:
    """Names of the modules that no checkpoint holds. PEFT saves `classifier` and `score` by itself and would lose the
    rest of the head: DeBERTa's pooler, ModernBERT's head, DistilBERT's pre_classifier."""
    backbone = classifier.base_model_prefix
    names = [name for name, module in classifier.named_children() if name != backbone and list(module.parameters())]
    if pooler_is_random(encoder) and getattr(classifier.base_model, "pooler", None) is not None:
        names.append("pooler")
    return names


def pooler_is_random(encoder: FrozenEncoder) -> bool:
    """Whether the encoder has a pooler that its checkpoint did not hold."""
    return getattr(encoder.model, "pooler", None) is not None and "pooler" not in encoder.sites


def input_length(encoder: FrozenEncoder, method: Method, virtual_tokens: int, max_length: int) -> int:
    """Tokens an input may have: virtual tokens take up positions, a prefix as well as a prompt.

    Raises:
        TuningError: there is no room left.
    """
    room = encoder.window - virtual_tokens
    if room < 8:
        raise TuningError(f"expected at most {encoder.window - 8} virtual tokens in this encoder, got {virtual_tokens}")
    return min(max_length, room)
