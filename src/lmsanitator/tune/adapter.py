"""PEFT's configuration of each method, with what PEFT cannot infer for some architectures filled in."""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.tune.head import SiteClassifier
from lmsanitator.tune.methods import TuneConfig

_SAVED_BY_PEFT = ("classifier", "score")
_PREFIX_SCALE = 0.02
_PROJECTIONS = ("query", "value", "q", "v", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj")
_FUSED = ("in_proj", "Wqkv", "c_attn", "query_key_value")


def adapter_config(
    encoder: FrozenEncoder, classifier: PreTrainedModel, config: TuneConfig, kind: TaskType
) -> PeftConfig:
    """What PEFT is told."""
    base, revision = origin(encoder.source)
    shared: dict[str, Any] = {
        "task_type": kind,
        "modules_to_save": _unsaved_modules(encoder, classifier) or None,
        "base_model_name_or_path": base,
        "revision": revision,
    }
    if config.method == "lora":
        targets, transposed = _projections(classifier)
        return LoraConfig(
            **shared, r=config.rank, lora_alpha=2 * config.rank, target_modules=targets, fan_in_fan_out=transposed
        )
    shared["num_virtual_tokens"] = config.virtual_tokens
    if config.method == "prefix":
        return PrefixTuningConfig(**shared)
    width = encoder.embed(torch.zeros(1, 1, dtype=torch.long)).shape[-1]  # ALBERT's and ELECTRA's is not hidden_size
    shared |= {
        "token_dim": width,
        "num_layers": classifier.config.num_hidden_layers,
        "num_attention_heads": classifier.config.num_attention_heads,
    }
    if config.method == "p-tuning":
        return PromptEncoderConfig(**shared, encoder_hidden_size=width)
    # random vectors are far from anything the encoder knows
    return PromptTuningConfig(**shared, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB)


def _projections(classifier: PreTrainedModel) -> tuple[list[str], bool]:
    """The attention's query and value projections by name (Hu et al., section 7.1), and whether they are transposed;
    projections that are fused into one are taken whole."""
    found = {
        name.rpartition(".")[2]: module
        for name, module in classifier.named_modules()
        if name.rpartition(".")[2] in (*_PROJECTIONS, *_FUSED) and isinstance(module, Linear | Conv1D)
    }
    return sorted(found), any(isinstance(module, Conv1D) for module in found.values())


def _unsaved_modules(encoder: FrozenEncoder, classifier: PreTrainedModel) -> list[str]:
    """Modules that neither the checkpoint nor PEFT would save: DeBERTa's pooler, ModernBERT's head, DistilBERT's
    pre_classifier, and a pooler the checkpoint came without. Unsaved, they would be random again after loading."""
    known = (classifier.base_model_prefix, *_SAVED_BY_PEFT)
    names = [name for name, part in classifier.named_children() if name not in known and list(part.parameters())]
    used = not isinstance(classifier, SiteClassifier) and getattr(classifier.base_model, "pooler", None) is not None
    if used and pooler_is_random(encoder):
        names.append("pooler")
    return names


def classifier_of(model: PeftModel) -> PreTrainedModel:
    """The classifier that the adapter sits in."""
    return cast(PreTrainedModel, model.get_base_model())


def shrink_prefix(model: PeftModel) -> None:
    """Start a prefix as next to nothing.

    PEFT's unit variance drowns the text and dilutes the backdoor that is to be studied (measured on MiniLM: ASR 0.97
    against 1.0, accuracy 0.90 against 0.93); with zeros the virtual tokens would stay alike for ever.
    """
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.mul_(_PREFIX_SCALE)


def settle(model: PeftModel, method: str) -> None:
    """Keep what P-tuning's network puts out and leave the network, as PEFT does when it saves and loads."""
    if method == "p-tuning":
        with torch.no_grad():
            virtual = model.get_parameter("prompt_encoder.default.embedding.weight")
            virtual.copy_(model.get_prompt_embedding_to_save("default"))
        model.peft_config["default"].inference_mode = True


def without_adapter(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder as it was before an adapter was put into its layers. It shares all weights, and leaves the adapter
    in service alone: PEFT's own switch would turn it off for every thread."""
    plain = copy.deepcopy(encoder, {id(weight): weight for weight in encoder.parameters()})
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            plain.set_submodule(name, layer.get_base_layer())
    return plain


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
