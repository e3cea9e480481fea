"""Tuning methods that leave the encoder's weights alone, and the architectures that take them.

A frozen encoder keeps whatever backdoor it was delivered with, and keeps its PVs too (Wei et al., NDSS 2024, section
II-B). Methods: prompt tuning (Lester et al. 2021, arXiv 2104.08691) and prefix tuning in every layer, which is
P-tuning v2 (Liu et al. 2022, arXiv 2110.07602), both as PEFT implements them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError, UnsupportedError, UsageError

Method = Literal["prefix", "prompt"]
METHODS: tuple[Method, ...] = get_args(Method)
PEFT_TYPES: Mapping[str, Method] = MappingProxyType({"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"})
"""PEFT's names of the methods, as adapter_config.json has them."""

_NO_PAST = "PEFT cannot hand its attention the past keys and values that a prefix is made of"
_READS_END = "its head reads the last position, which is padding in a batch once PEFT has prepended a prompt"
_BOTH = (
    "bert",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "xlm-roberta",
)
_PROMPT_ONLY = (
    "albert",
    "big_bird",
    "convbert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "mobilebert",
    "modernbert",
    "mpnet",
    "roformer",
)
_PREFIX_ONLY = ("gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "opt", "qwen2")


def _reasons(prefix: str | None = None, prompt: str | None = None) -> Mapping[Method, str | None]:
    return MappingProxyType({"prefix": prefix, "prompt": prompt})


CAPABILITIES: Mapping[str, Mapping[Method, str | None]] = MappingProxyType(
    {
        **dict.fromkeys(_BOTH, _reasons()),
        **dict.fromkeys(_PROMPT_ONLY, _reasons(prefix=_NO_PAST)),
        **dict.fromkeys(_PREFIX_ONLY, _reasons(prompt=_READS_END)),
        "xlnet": _reasons(prefix=_NO_PAST, prompt=_READS_END),
    }
)
"""Architecture (transformers' model_type) -> method -> None, or why it cannot be used. Measured with PEFT 0.21 and
transformers 5.23 on small random models: the virtual tokens change the logits and get a gradient, padding changes
nothing."""
_SHORTEST = 8


@dataclass(frozen=True)
class TuneConfig:
    """How to tune.

    Args:
        method: `prefix` puts virtual tokens before the keys and values of every layer, `prompt` before the input.
        virtual_tokens: how many.
        epochs: the most passes over the training examples.
        max_steps: the most optimiser steps, for tasks with many examples; None sets no limit but `epochs`.
        patience: stop after so many looks at the validation accuracy (8 in a whole run) that found it no better.
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
    epochs: int = 8
    max_steps: int | None = None
    patience: int = 3
    learning_rate: float = 1e-2
    head_learning_rate: float = 1e-2
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"expected a tuning method of {', '.join(METHODS)}; got {self.method}")
        lowest = {"virtual_tokens": 1, "epochs": 1, "patience": 1, "batch_size": 1, "max_length": _SHORTEST}
        for name, low in (lowest if self.max_steps is None else lowest | {"max_steps": 1}).items():
            if getattr(self, name) < low:
                raise UsageError(f"expected {name} to be {low} or more, got {getattr(self, name)}")
        for name in ("learning_rate", "head_learning_rate"):
            if not 0 < getattr(self, name) <= 1:  # NaN fails this too
                raise UsageError(f"expected {name} above 0 and at most 1, got {getattr(self, name)}")


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


def input_length(encoder: FrozenEncoder, config: TuneConfig) -> int:
    """Tokens an input may have: virtual tokens take up positions, those of a prefix as well as those of a prompt.

    Raises:
        TuningError: there is no room left.
    """
    room = encoder.window - config.virtual_tokens
    if room < _SHORTEST:
        most = encoder.window - _SHORTEST
        raise TuningError(f"expected at most {most} virtual tokens in this encoder, got {config.virtual_tokens}")
    return min(config.max_length, room)
