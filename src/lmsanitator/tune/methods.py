"""Tuning methods that leave the encoder's weights alone, and the architectures that take them.

A frozen encoder keeps whatever backdoor it was delivered with, and keeps its PVs too (Wei et al., NDSS 2024, section
II-B). Methods, all as PEFT implements them: prompt tuning (Lester et al. 2021, arXiv 2104.08691), P-tuning, whose
virtual tokens come out of a small network while they are trained (Liu et al. 2021, arXiv 2103.10385), prefix tuning in
every layer, which is P-tuning v2 (Liu et al. 2022, arXiv 2110.07602), and LoRA on the attention projections (Hu et al.
2021, arXiv 2106.09685), which adds low-rank weights beside the frozen ones and so moves the outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import TuningError, UnsupportedError, UsageError

Method = Literal["prefix", "prompt", "p-tuning", "lora"]
METHODS: tuple[Method, ...] = get_args(Method)
PREPENDED: tuple[Method, ...] = ("prompt", "p-tuning")
"""Methods under which the virtual tokens stand before [CLS], in the input."""
PEFT_TYPES: Mapping[str, Method] = MappingProxyType(
    {"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt", "P_TUNING": "p-tuning", "LORA": "lora"}
)
"""PEFT's names of the methods, as adapter_config.json has them."""
LEARNING_RATES: Mapping[Method, float] = MappingProxyType(
    {"prefix": 1e-2, "prompt": 1e-2, "p-tuning": 1e-3, "lora": 1e-3}
)
"""Peak learning rates to start from. Networks (P-tuning's, LoRA's products) want less than bare vectors; these are
chosen with caution, and a short run may learn faster with more."""

VectorSite = Literal["cls", "pooler", "mean", "mask", "last"]
HeadSite = Literal["auto"] | VectorSite
HEAD_SITES: tuple[HeadSite, ...] = ("auto", *get_args(VectorSite))

_NO_PAST = "PEFT cannot hand its attention the past keys and values that a prefix is made of"
_READS_END = "its head reads the last position, which is padding in a batch once PEFT has prepended a prompt"
_BARE = "its attention projections are bare parameters, which PEFT's LoRA cannot wrap"
_ALL = (
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
_NO_PREFIX = (
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
_DECODERS = ("gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "opt", "qwen2")


def _reasons(
    prefix: str | None = None, prompt: str | None = None, lora: str | None = None
) -> Mapping[Method, str | None]:
    return MappingProxyType({"prefix": prefix, "prompt": prompt, "p-tuning": prompt, "lora": lora})


CAPABILITIES: Mapping[str, Mapping[Method, str | None]] = MappingProxyType(
    {
        **dict.fromkeys(_ALL, _reasons()),
        **dict.fromkeys(_NO_PREFIX, _reasons(prefix=_NO_PAST)),
        **dict.fromkeys(_DECODERS, _reasons(prompt=_READS_END)),
        "xlnet": _reasons(prefix=_NO_PAST, prompt=_READS_END, lora=_BARE),
    }
)
"""Architecture (transformers' model_type) -> method -> None, or why it cannot be used with the architecture's own head.
Measured with PEFT 0.21 and transformers 5.23 on small random models: the adapter changes the logits and gets a
gradient, padding changes nothing."""
_SHORTEST = 8


@dataclass(frozen=True)
class TuneConfig:
    """How to tune.

    Args:
        method: `prefix` puts virtual tokens before the keys and values of every layer, `prompt` and `p-tuning` before
            the input, `lora` adds low-rank weights to the attention projections.
        site: where the task head reads the encoder's output: `auto` is the architecture's own sequence classifier,
            anything else a linear head on that site (see `SiteClassifier`).
        virtual_tokens: how many; `lora` has none.
        rank: of LoRA's weights, whose scale is 2.
        epochs: the most passes over the training examples.
        max_steps: the most optimiser steps, for tasks with many examples; None sets no limit but `epochs`.
        patience: stop after so many looks at the validation accuracy (8 in a whole run) that found it no better.
        learning_rate: of the adapter, at its peak (AdamW); None takes the method's own of `LEARNING_RATES`.
        head_learning_rate: of the classification head, at its peak.
        batch_size: examples an optimiser step.
        max_length: tokens an input is cut to; less where the encoder's window is smaller.
        seed: of the initial weights and the order of the examples.

    Raises:
        UsageError: a value that makes no sense.
    """

    method: Method = "prefix"
    site: HeadSite = "auto"
    virtual_tokens: int = 8
    rank: int = 8
    epochs: int = 8
    max_steps: int | None = None
    patience: int = 3
    learning_rate: float | None = None
    head_learning_rate: float = 1e-2
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"expected a tuning method of {', '.join(METHODS)}; got {self.method}")
        if self.site not in HEAD_SITES:
            raise UsageError(f"expected a site of {', '.join(HEAD_SITES)} for the head; got {self.site}")
        lowest = {"virtual_tokens": 1, "rank": 1, "epochs": 1, "patience": 1, "batch_size": 1, "max_length": _SHORTEST}
        for name, low in (lowest if self.max_steps is None else lowest | {"max_steps": 1}).items():
            if getattr(self, name) < low:
                raise UsageError(f"expected {name} to be {low} or more, got {getattr(self, name)}")
        for name, rate in (("learning_rate", self.peak), ("head_learning_rate", self.head_learning_rate)):
            if not 0 < rate <= 1:  # NaN fails this too
                raise UsageError(f"expected {name} above 0 and at most 1, got {rate}")

    @property
    def peak(self) -> float:
        """The adapter's learning rate."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate

    @property
    def positions(self) -> int:
        """Positions of the window that the virtual tokens take up, those of a prefix as well as those of a prompt."""
        return 0 if self.method == "lora" else self.virtual_tokens

    @property
    def shift(self) -> int:
        """Where [CLS] sits: behind the virtual tokens that PEFT puts before it."""
        return self.virtual_tokens if self.method in PREPENDED else 0


def check_supported(encoder: FrozenEncoder, method: Method, site: Site | Literal["auto"] = "auto") -> None:
    """Raise UnsupportedError, with the reason, unless this architecture takes `method` and has the output `site`."""
    kind = encoder.model.config.model_type
    if kind not in CAPABILITIES:
        raise UnsupportedError(f"expected an architecture that tuning was tried on, got {kind}")
    reasons = {
        known: None if site != "auto" and reason == _READS_END else reason  # a site's head knows where its text ends
        for known, reason in CAPABILITIES[kind].items()
    }
    if reasons[method] is not None:
        others = [other for other in METHODS if reasons[other] is None]
        advice = f"; use {others[0]}" if others else ""
        raise UnsupportedError(f"expected a tuning method that {kind} takes, got {method}: {reasons[method]}{advice}")
    if site != "auto":
        encoder.require([site])


def input_length(encoder: FrozenEncoder, config: TuneConfig) -> int:
    """Tokens an input may have beside the virtual ones.

    Raises:
        TuningError: there is no room left.
    """
    room = encoder.window - config.positions
    if room < _SHORTEST:
        most = encoder.window - _SHORTEST
        raise TuningError(f"expected at most {most} virtual tokens in this encoder, got {config.positions}")
    return min(config.max_length, room)
