"""Merge a LoRA adapter into its encoder. Every tensor of the file has its place, or the whole file is refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmsanitator.encoder.lora import HINT, Lora
from lmsanitator.encoder.quiet import refusing
from lmsanitator.errors import CheckpointError, UnsupportedError

_PAIRED = re.compile(r"(.+)\.lora_([AB])\.weight")
_OTHER = re.compile(r"(^|\.)lora_")
_BIAS = ".base_layer.bias"
"""What the bias of a module is called that has a pair as well."""


@dataclass
class _Plan:
    """Where the tensors of a file go: by the names of parameters, those in the file."""

    pairs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Modules with what is stored as A and B of each."""
    replaced: dict[str, str] = field(default_factory=dict)


def merge(model: PreTrainedModel, lora: Lora) -> frozenset[str]:
    """Add the products of the pairs to the weights of `model`, and put in what was trained as a whole. What belongs to
    a task head is left out.

    Returns:
        The names of the parameters that were put in.

    Raises:
        CheckpointError: tensors that do not fit this encoder, or each other.
        UnsupportedError: tensors of another kind than LoRA's pairs.
    """
    plan = _plan(model, lora)
    with refusing("weights to merge"), safe_open(lora.path, framework="pt") as file, torch.no_grad():
        for name, stored in plan.replaced.items():
            model.get_parameter(name).copy_(file.get_tensor(lora.stored(stored)))
        for name, pair in plan.pairs.items():
            a, b = (file.get_tensor(lora.stored(pair[part])).float() for part in "AB")
            delta = lora.scale(len(a)) * (b @ a)
            module = model.get_submodule(name)
            model.get_parameter(f"{name}.weight").add_(delta.T if isinstance(module, Conv1D) else delta)
    return frozenset(plan.replaced)


def _plan(model: PreTrainedModel, lora: Lora) -> _Plan:
    plan, parameters, modules = _Plan(), dict(model.named_parameters()), dict(model.named_modules())
    inside = _inside(model, lora)
    for name, stored in inside.items():
        if stored in lora.odd:
            raise CheckpointError(f"expected floating-point weights, {stored!r:.80} is stored as something else")
        paired = _PAIRED.fullmatch(name)
        if paired:
            plan.pairs.setdefault(paired[1], {})[paired[2]] = stored
        elif _OTHER.search(name):
            raise UnsupportedError(f"expected plain LoRA, {lora.path.name} holds {stored!r:.80}: {HINT}")
        else:
            plan.replaced[name.replace(_BIAS, ".bias")] = stored
    for name, pair in plan.pairs.items():
        _check_pair(name, pair, modules.get(name), lora)
    for name, stored in plan.replaced.items():
        weight = parameters.get(name)
        if weight is None:
            raise CheckpointError(f"expected weights of this encoder, it has none for {stored!r:.80}")
        _check_shape(stored, tuple(weight.shape), lora)
        if (name.rpartition(".")[0] in plan.pairs) != stored.endswith(_BIAS):  # PEFT would pass over it
            raise CheckpointError(f"expected a pair or a whole weight for each module, {stored!r:.80} is neither")
    if len(plan.replaced) + sum(map(len, plan.pairs.values())) < len(inside):
        raise CheckpointError(f"expected each weight once in {lora.path.name}, one is there under two names")
    if not inside:
        raise CheckpointError(f"expected LoRA weights for this encoder, none in {lora.path.name} fits it")
    return plan


def _inside(model: PreTrainedModel, lora: Lora) -> dict[str, str]:
    """Names of the encoder, and what they are called in the file. An adapter that was made for the encoder with a head
    has a prefix before all of them, and what has none belongs to the head."""
    parts = {name.partition(".")[0] for name, _ in model.named_parameters()}
    prefix = f"{model.base_model_prefix}."
    if not any(name.startswith(prefix) for name in lora.shapes):
        prefix = ""
    inside = {name.removeprefix(prefix): name for name in lora.shapes if name.startswith(prefix)}
    if not prefix:
        inside = {name: stored for name, stored in inside.items() if name.partition(".")[0] in parts}
    for name in sorted(lora.shapes.keys() - set(inside.values())):
        if name.partition(".")[0] in parts:
            raise CheckpointError(f"expected all names with {prefix} before them or none, {name!r:.80} has it not")
        _check_head(name, model, lora.shapes)
    return inside


def _check_head(name: str, model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """What predicts words may share its weights with what reads them."""
    table = next(model.get_input_embeddings().parameters())
    tied = getattr(model.config, "tie_word_embeddings", True)
    if tied and (shapes[name] == table.shape or (_PAIRED.fullmatch(name) and len(table) in shapes[name])):
        raise UnsupportedError(
            f"expected a head with weights of its own, {name!r:.80} may be the encoder's embeddings: {HINT}"
        )


def _check_pair(name: str, pair: dict[str, str], module: torch.nn.Module | None, lora: Lora) -> None:
    stored = next(iter(pair.values()))
    if len(pair) < 2:
        raise CheckpointError(f"expected A and B of each pair in {lora.path.name}, {stored!r:.80} is alone")
    if module is None:
        raise CheckpointError(f"expected weights of this encoder, it has none for {stored!r:.80}")
    if not isinstance(module, torch.nn.Linear | Conv1D):
        raise UnsupportedError(f"expected LoRA on linear layers, {stored!r:.80} is for another: {HINT}")
    if not lora.adapts(stored.rpartition(".lora_")[0]):
        raise CheckpointError(f"expected pairs for the target_modules that the adapter names, {stored!r:.80} is none")
    rows, columns = module.weight.shape
    outputs, inputs = (columns, rows) if isinstance(module, Conv1D) else (rows, columns)
    shape = lora.shapes[pair["A"]]
    rank = lora.rank or (shape[0] if shape else 0)
    _check_shape(pair["A"], (rank, inputs), lora)
    _check_shape(pair["B"], (outputs, rank), lora)
    if not 1 <= rank <= max(inputs, outputs):
        raise CheckpointError(f"expected a rank from 1 to the {max(inputs, outputs):,} of its weight, got {rank:,}")


def _check_shape(stored: str, expected: tuple[int, ...], lora: Lora) -> None:
    if lora.shapes[stored] != expected:
        raise CheckpointError(
            f"expected {stored!r:.80} of shape {expected} for this encoder, got {lora.shapes[stored]}"
        )
